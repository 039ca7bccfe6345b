  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  9f                             lahf
  0004  0f 90 c0                       seto    al
  0007  50                             push    rax
restart0:
  0008  48 8d 0d 51 01 00 00           lea     rcx, [rel section0]
  000f  64 48 89 0c 25 28 09 00 00     mov     [fs:0x928], rcx
begin0:
  0018  64 8b 0c 25 24 09 00 00        mov     ecx, [fs:0x924]
  0020  f3 0f c7 f8                    rdpid   rax
  0024  39 c8                          cmp     eax, ecx
  0026  75 79                          jne     stray0
  0028  48 69 c9 00 00 18 00           imul    rcx, 0x180000
  002f  48 03 0d 0a 01 00 00           add     rcx, [rel lines0]
  0036  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0040  48 8b 00                       mov     rax, [rax]
  0043  48 03 81 80 00 00 00           add     rax, [rcx + 0x80]
  004a  48 3b 01                       cmp     rax, [rcx]
  004d  0f 86 cb 00 00 00              jbe     full0
  0053  ba 01 00 00 00                 mov     edx, 1
  0058  48 0f c1 11                    xadd    [rcx], rdx
end0:
  005c  89 d0                          mov     eax, edx
  005e  25 ff ff 00 00                 and     eax, 0xffff
  0063  48 8d 04 40                    lea     rax, [rax + rax * 2]
  0067  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  006f  48 89 11                       mov     [rcx], rdx
  0072  48 c1 ea 10                    shr     rdx, 0x10
  0076  c1 e2 16                       shl     edx, 0x16
  0079  48 8b 44 24 28                 mov     rax, [rsp + 0x28]
  007e  48 89 41 10                    mov     [rcx + 0x10], rax
  0082  64 0b 14 25 d0 02 00 00        or      edx, [fs:0x2d0]
  008a  8b 44 24 20                    mov     eax, [rsp + 0x20]
  008e  48 c1 e2 20                    shl     rdx, 0x20
  0092  48 09 c2                       or      rdx, rax
  0095  48 89 51 08                    mov     [rcx + 8], rdx
recorded0:
  0099  58                             pop     rax
  009a  04 7f                          add     al, 0x7f
  009c  9e                             sahf
  009d  5a                             pop     rdx
  009e  59                             pop     rcx
  009f  58                             pop     rax
  00a0  c3                             ret
stray0:
  00a1  48 b9 00 10 30 00 00 7f 00 00  mov     rcx, 0x7f0000301000
retry0:
  00ab  48 8b 01                       mov     rax, [rcx]
  00ae  48 ba 40 00 00 00 00 7e 00 00  mov     rdx, 0x7e0000000040
  00b8  48 8b 12                       mov     rdx, [rdx]
  00bb  48 03 91 80 00 00 00           add     rdx, [rcx + 0x80]
  00c2  48 39 d0                       cmp     rax, rdx
  00c5  73 57                          jae     full0
  00c7  48 8d 50 01                    lea     rdx, [rax + 1]
  00cb  f0 48 0f b1 11                 lock cmpxchg [rcx], rdx
  00d0  75 d9                          jne     retry0
  00d2  48 89 c2                       mov     rdx, rax
  00d5  89 d0                          mov     eax, edx
  00d7  25 ff ff 00 00                 and     eax, 0xffff
  00dc  48 8d 04 40                    lea     rax, [rax + rax * 2]
  00e0  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  00e8  48 89 11                       mov     [rcx], rdx
  00eb  48 c1 ea 10                    shr     rdx, 0x10
  00ef  c1 e2 16                       shl     edx, 0x16
  00f2  48 8b 44 24 28                 mov     rax, [rsp + 0x28]
  00f7  48 89 41 10                    mov     [rcx + 0x10], rax
  00fb  64 8b 04 25 d0 02 00 00        mov     eax, [fs:0x2d0]
  0103  25 ff ff 3f 00                 and     eax, 0x3fffff
  0108  09 c2                          or      edx, eax
stray_no_tls0:
  010a  8b 44 24 20                    mov     eax, [rsp + 0x20]
  010e  48 c1 e2 20                    shl     rdx, 0x20
  0112  48 09 c2                       or      rdx, rax
  0115  48 89 51 08                    mov     [rcx + 8], rdx
  0119  e9 7b ff ff ff                 jmp     recorded0
full0:
  011e  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0128  48 8b 00                       mov     rax, [rax]
  012b  48 85 c0                       test    rax, rax
  012e  0f 84 65 ff ff ff              je      recorded0
  0134  f0 48 ff 41 08                 lock inc qword [rcx + 8]
  0139  e9 5b ff ff ff                 jmp     recorded0
  013e  cc                             int3
  013f  cc                             int3
lines0:
  0140  00 10 00 00 00 7f 00 00        dq 0x7f0000001000
  0148  53 30 05 53                    dd 0x53053053
abort0:
  014c  e9 b7 fe ff ff                 jmp     restart0
  0151  cc                             int3
  0152  cc                             int3
  0153  cc                             int3
  0154  cc                             int3
  0155  cc                             int3
  0156  cc                             int3
  0157  cc                             int3
  0158  cc                             int3
  0159  cc                             int3
  015a  cc                             int3
  015b  cc                             int3
  015c  cc                             int3
  015d  cc                             int3
  015e  cc                             int3
  015f  cc                             int3
section0:
  0160  00 00 00 00 00 00 00 00        dq 0x0
  0168  18 00 00 00 10 7f 00 00        dq begin0
  0170  44 00 00 00 00 00 00 00        dq 0x44
  0178  4c 01 00 00 10 7f 00 00        dq abort0
