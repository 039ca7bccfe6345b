  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  48 8b 44 24 18                 mov     rax, [rsp + 0x18]
  0008  8b 40 f3                       mov     eax, [rax - 0xd]
  000b  eb 04                          jmp     slow0
counted0:
  000d  5a                             pop     rdx
  000e  59                             pop     rcx
  000f  58                             pop     rax
  0010  c3                             ret
slow0:
  0011  9c                             pushf
  0012  48 b9 00 00 00 00 00 7e 00 00  mov     rcx, 0x7e0000000000
  001c  48 8b 09                       mov     rcx, [rcx]
  001f  e3 13                          jrcxz   silent0
  0021  48 b9 00 00 80 00 00 7f 00 00  mov     rcx, 0x7f0000800000
  002b  f0 48 ff 84 c1 00 10 00 00     lock inc qword [rcx + rax * 8 + 0x1000]
silent0:
  0034  9d                             popf
  0035  eb d6                          jmp     counted0
