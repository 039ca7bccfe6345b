  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  48 8b 44 24 18                 mov     rax, [rsp + 0x18]
  0008  8b 40 f3                       mov     eax, [rax - 0xd]
restart0:
  000b  48 8d 0d 6e 00 00 00           lea     rcx, [rel section0]
  0012  64 48 89 0c 25 28 09 00 00     mov     [fs:0x928], rcx
begin0:
  001b  64 48 63 0c 25 24 09 00 00     movsxd  rcx, [fs:0x924]
  0024  48 ba 80 02 00 00 00 7e 00 00  mov     rdx, 0x7e0000000280
  002e  48 8b 0c ca                    mov     rcx, [rdx + rcx * 8]
  0032  e3 18                          jrcxz   slow0
  0034  48 8b 94 c1 00 10 00 00        mov     rdx, [rcx + rax * 8 + 0x1000]
  003c  48 8d 52 01                    lea     rdx, [rdx + 1]
  0040  48 89 94 c1 00 10 00 00        mov     [rcx + rax * 8 + 0x1000], rdx
end0:
counted0:
  0048  5a                             pop     rdx
  0049  59                             pop     rcx
  004a  58                             pop     rax
  004b  c3                             ret
slow0:
  004c  9c                             pushf
  004d  48 b9 00 00 00 00 00 7e 00 00  mov     rcx, 0x7e0000000000
  0057  48 8b 09                       mov     rcx, [rcx]
  005a  e3 13                          jrcxz   silent0
  005c  48 b9 00 00 80 00 00 7f 00 00  mov     rcx, 0x7f0000800000
  0066  f0 48 ff 84 c1 00 10 00 00     lock inc qword [rcx + rax * 8 + 0x1000]
silent0:
  006f  9d                             popf
  0070  eb d6                          jmp     counted0
  0072  53 30 05 53                    dd 0x53053053
abort0:
  0076  eb 93                          jmp     restart0
  0078  cc                             int3
  0079  cc                             int3
  007a  cc                             int3
  007b  cc                             int3
  007c  cc                             int3
  007d  cc                             int3
  007e  cc                             int3
  007f  cc                             int3
section0:
  0080  00 00 00 00 00 00 00 00        dq 0x0
  0088  1b 00 00 00 10 7f 00 00        dq begin0
  0090  2d 00 00 00 00 00 00 00        dq 0x2d
  0098  76 00 00 00 10 7f 00 00        dq abort0
