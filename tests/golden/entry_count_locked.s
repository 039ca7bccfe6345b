  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  56                             push    rsi
  0004  57                             push    rdi
  0005  48 8b 44 24 28                 mov     rax, [rsp + 0x28]
  000a  8b 40 f3                       mov     eax, [rax - 0xd]
  000d  eb 06                          jmp     slow0
counted0:
  000f  5f                             pop     rdi
  0010  5e                             pop     rsi
  0011  5a                             pop     rdx
  0012  59                             pop     rcx
  0013  58                             pop     rax
  0014  c3                             ret
slow0:
  0015  9c                             pushf
  0016  48 b9 00 00 00 00 00 7e 00 00  mov     rcx, 0x7e0000000000
  0020  48 8b 09                       mov     rcx, [rcx]
  0023  e3 13                          jrcxz   silent0
  0025  48 b9 00 00 80 00 00 7f 00 00  mov     rcx, 0x7f0000800000
  002f  f0 48 ff 84 c1 00 10 00 00     lock inc qword [rcx + rax * 8 + 0x1000]
silent0:
  0038  9d                             popf
  0039  eb d4                          jmp     counted0
