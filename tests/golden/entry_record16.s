  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  56                             push    rsi
  0004  9f                             lahf
  0005  0f 90 c0                       seto    al
  0008  50                             push    rax
restart0:
  0009  48 8d 0d 50 01 00 00           lea     rcx, [rel section0]
  0010  64 48 89 0c 25 28 09 00 00     mov     [fs:0x928], rcx
begin0:
  0019  0f 31                          rdtsc
  001b  48 c1 e2 20                    shl     rdx, 0x20
  001f  48 8d 34 02                    lea     rsi, [rdx + rax]
  0023  64 8b 0c 25 24 09 00 00        mov     ecx, [fs:0x924]
  002b  f3 0f c7 f8                    rdpid   rax
  002f  25 ff 0f 00 00                 and     eax, 0xfff
  0034  39 c8                          cmp     eax, ecx
  0036  75 6a                          jne     stray0
  0038  48 69 c9 00 00 10 00           imul    rcx, 0x100000
  003f  48 03 0d fa 00 00 00           add     rcx, [rel lines0]
  0046  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0050  48 8b 00                       mov     rax, [rax]
  0053  48 03 81 80 00 00 00           add     rax, [rcx + 0x80]
  005a  48 3b 01                       cmp     rax, [rcx]
  005d  0f 86 bb 00 00 00              jbe     full0
  0063  ba 01 00 00 00                 mov     edx, 1
  0068  48 0f c1 11                    xadd    [rcx], rdx
end0:
  006c  48 8d 04 12                    lea     rax, [rdx + rdx]
  0070  25 fe ff 01 00                 and     eax, 0x1fffe
  0075  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  007d  48 89 31                       mov     [rcx], rsi
  0080  48 c1 ea 10                    shr     rdx, 0x10
  0084  8b 44 24 28                    mov     eax, [rsp + 0x28]
  0088  89 41 08                       mov     [rcx + 8], eax
  008b  c1 e2 16                       shl     edx, 0x16
  008e  64 0b 14 25 d0 02 00 00        or      edx, [fs:0x2d0]
  0096  89 51 0c                       mov     [rcx + 0xc], edx
recorded0:
  0099  58                             pop     rax
  009a  04 7f                          add     al, 0x7f
  009c  9e                             sahf
  009d  5e                             pop     rsi
  009e  5a                             pop     rdx
  009f  59                             pop     rcx
  00a0  58                             pop     rax
  00a1  c3                             ret
stray0:
  00a2  48 b9 00 10 20 00 00 7f 00 00  mov     rcx, 0x7f0000201000
retry0:
  00ac  48 8b 31                       mov     rsi, [rcx]
  00af  0f 31                          rdtsc
  00b1  48 c1 e2 20                    shl     rdx, 0x20
  00b5  48 09 c2                       or      rdx, rax
  00b8  48 89 f0                       mov     rax, rsi
  00bb  48 89 d6                       mov     rsi, rdx
  00be  48 ba 40 00 00 00 00 7e 00 00  mov     rdx, 0x7e0000000040
  00c8  48 8b 12                       mov     rdx, [rdx]
  00cb  48 03 91 80 00 00 00           add     rdx, [rcx + 0x80]
  00d2  48 39 d0                       cmp     rax, rdx
  00d5  73 47                          jae     full0
  00d7  48 8d 50 01                    lea     rdx, [rax + 1]
  00db  f0 48 0f b1 11                 lock cmpxchg [rcx], rdx
  00e0  75 ca                          jne     retry0
  00e2  48 89 c2                       mov     rdx, rax
  00e5  48 8d 04 12                    lea     rax, [rdx + rdx]
  00e9  25 fe ff 01 00                 and     eax, 0x1fffe
  00ee  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  00f6  48 89 31                       mov     [rcx], rsi
  00f9  48 c1 ea 10                    shr     rdx, 0x10
  00fd  8b 44 24 28                    mov     eax, [rsp + 0x28]
  0101  89 41 08                       mov     [rcx + 8], eax
  0104  c1 e2 16                       shl     edx, 0x16
  0107  64 8b 04 25 d0 02 00 00        mov     eax, [fs:0x2d0]
  010f  25 ff ff 3f 00                 and     eax, 0x3fffff
  0114  09 c2                          or      edx, eax
stray_no_tls0:
  0116  89 51 0c                       mov     [rcx + 0xc], edx
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
  014c  e9 b8 fe ff ff                 jmp     restart0
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
  0168  19 00 00 00 10 7f 00 00        dq begin0
  0170  53 00 00 00 00 00 00 00        dq 0x53
  0178  4c 01 00 00 10 7f 00 00        dq abort0
