  0000  50                             push    rax
  0001  51                             push    rcx
  0002  9f                             lahf
  0003  0f 90 c0                       seto    al
  0006  50                             push    rax
  0007  eb 07                          jmp     slow0
counted0:
  0009  58                             pop     rax
  000a  04 7f                          add     al, 0x7f
  000c  9e                             sahf
  000d  59                             pop     rcx
  000e  58                             pop     rax
  000f  c3                             ret
slow0:
  0010  48 b9 00 00 00 00 00 7e 00 00  mov     rcx, 0x7e0000000000
  001a  48 8b 09                       mov     rcx, [rcx]
  001d  48 85 c9                       test    rcx, rcx
  0020  74 e7                          je      counted0
  0022  48 b9 00 00 80 00 00 7f 00 00  mov     rcx, 0x7f0000800000
  002c  48 8b 44 24 18                 mov     rax, [rsp + 0x18]
  0031  8b 40 f3                       mov     eax, [rax - 0xd]
  0034  f0 48 ff 84 c1 00 10 00 00     lock inc qword [rcx + rax * 8 + 0x1000]
  003d  eb ca                          jmp     counted0
