  0000  f3 0f c7 ff                    rdpid   rdi
  0004  81 e7 ff 0f 00 00              and     edi, 0xfff
  000a  48 c1 e7 06                    shl     rdi, 6
  000e  48 be 00 10 00 00 00 7f 00 00  mov     rsi, 0x7f0000001000
  0018  48 01 fe                       add     rsi, rdi
retry0:
  001b  48 8b 0e                       mov     rcx, [rsi]
  001e  0f 31                          rdtsc
  0020  48 c1 e2 20                    shl     rdx, 0x20
  0024  48 09 c2                       or      rdx, rax
  0027  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0031  48 8b 00                       mov     rax, [rax]
  0034  48 03 86 80 00 00 00           add     rax, [rsi + 0x80]
  003b  48 39 c1                       cmp     rcx, rax
  003e  73 70                          jae     full0
  0040  48 89 c8                       mov     rax, rcx
  0043  48 8d 48 01                    lea     rcx, [rax + 1]
  0047  f0 48 0f b1 0e                 lock cmpxchg [rsi], rcx
  004c  75 cd                          jne     retry0
  004e  48 69 ff 00 60 00 00           imul    rdi, 0x6000
  0055  89 c1                          mov     ecx, eax
  0057  81 e1 ff ff 00 00              and     ecx, 0xffff
  005d  48 8d 0c 49                    lea     rcx, [rcx + rcx * 2]
  0061  48 c1 e1 03                    shl     rcx, 3
  0065  48 01 f9                       add     rcx, rdi
  0068  48 bf 00 20 00 00 00 7f 00 00  mov     rdi, 0x7f0000002000
  0072  48 01 f9                       add     rcx, rdi
  0075  48 89 11                       mov     [rcx], rdx
  0078  48 c1 e8 10                    shr     rax, 0x10
  007c  c1 e0 16                       shl     eax, 0x16
  007f  f3 48 0f ae c2                 rdfsbase rdx
  0084  48 85 d2                       test    rdx, rdx
  0087  74 0e                          je      no_tls0
  0089  8b 92 d0 02 00 00              mov     edx, [rdx + 0x2d0]
  008f  81 e2 ff ff 3f 00              and     edx, 0x3fffff
  0095  09 d0                          or      eax, edx
no_tls0:
  0097  48 c1 e0 20                    shl     rax, 0x20
  009b  8b 74 24 48                    mov     esi, [rsp + 0x48]
  009f  48 09 f0                       or      rax, rsi
  00a2  48 8b 74 24 50                 mov     rsi, [rsp + 0x50]
  00a7  48 89 71 10                    mov     [rcx + 0x10], rsi
  00ab  48 89 41 08                    mov     [rcx + 8], rax
recorded0:
  00af  c3                             ret
full0:
  00b0  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  00ba  48 8b 00                       mov     rax, [rax]
  00bd  48 85 c0                       test    rax, rax
  00c0  74 ed                          je      recorded0
  00c2  f0 48 ff 46 08                 lock inc qword [rsi + 8]
  00c7  eb e6                          jmp     recorded0
