  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  9f                             lahf
  0004  0f 90 c0                       seto    al
  0007  50                             push    rax
  0008  48 8b 44 24 20                 mov     rax, [rsp + 0x20]
  000d  8b 40 f3                       mov     eax, [rax - 0xd]
  0010  eb 08                          jmp     slow0
counted0:
  0012  58                             pop     rax
  0013  04 7f                          add     al, 0x7f
  0015  9e                             sahf
  0016  5a                             pop     rdx
  0017  59                             pop     rcx
  0018  58                             pop     rax
  0019  c3                             ret
slow0:
  001a  48 b9 00 00 00 00 00 7e 00 00  mov     rcx, 0x7e0000000000
  0024  48 8b 09                       mov     rcx, [rcx]
  0027  48 85 c9                       test    rcx, rcx
  002a  74 e6                          je      counted0
  002c  48 b9 00 00 80 00 00 7f 00 00  mov     rcx, 0x7f0000800000
  0036  f0 48 ff 84 c1 00 10 00 00     lock inc qword [rcx + rax * 8 + 0x1000]
  003f  eb d1                          jmp     counted0
