  0000  f3 0f c7 f9                    rdpid   rcx
  0004  81 e1 ff 0f 00 00              and     ecx, 0xfff
  000a  48 be 00 10 00 00 00 7f 00 00  mov     rsi, 0x7f0000001000
  0014  48 69 c9 00 00 18 00           imul    rcx, 0x180000
  001b  48 01 ce                       add     rsi, rcx
retry0:
  001e  48 8b 0e                       mov     rcx, [rsi]
  0021  0f 31                          rdtsc
  0023  48 c1 e2 20                    shl     rdx, 0x20
  0027  48 09 c2                       or      rdx, rax
  002a  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0034  48 8b 00                       mov     rax, [rax]
  0037  48 03 86 80 00 00 00           add     rax, [rsi + 0x80]
  003e  48 39 c1                       cmp     rcx, rax
  0041  73 5a                          jae     full0
  0043  48 89 c8                       mov     rax, rcx
  0046  48 8d 48 01                    lea     rcx, [rax + 1]
  004a  f0 48 0f b1 0e                 lock cmpxchg [rsi], rcx
  004f  75 cd                          jne     retry0
  0051  89 c1                          mov     ecx, eax
  0053  81 e1 ff ff 00 00              and     ecx, 0xffff
  0059  48 8d 0c 49                    lea     rcx, [rcx + rcx * 2]
  005d  48 89 94 ce 00 01 00 00        mov     [rsi + rcx * 8 + 0x100], rdx
  0065  48 c1 e8 10                    shr     rax, 0x10
  0069  48 8b 54 24 50                 mov     rdx, [rsp + 0x50]
  006e  48 89 94 ce 10 01 00 00        mov     [rsi + rcx * 8 + 0x110], rdx
  0076  c1 e0 16                       shl     eax, 0x16
  0079  64 8b 14 25 d0 02 00 00        mov     edx, [fs:0x2d0]
  0081  81 e2 ff ff 3f 00              and     edx, 0x3fffff
  0087  09 d0                          or      eax, edx
no_tls0:
  0089  8b 54 24 48                    mov     edx, [rsp + 0x48]
  008d  48 c1 e0 20                    shl     rax, 0x20
  0091  48 09 d0                       or      rax, rdx
  0094  48 89 84 ce 08 01 00 00        mov     [rsi + rcx * 8 + 0x108], rax
recorded0:
  009c  c3                             ret
full0:
  009d  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  00a7  48 8b 00                       mov     rax, [rax]
  00aa  48 85 c0                       test    rax, rax
  00ad  74 ed                          je      recorded0
  00af  f0 48 ff 46 08                 lock inc qword [rsi + 8]
  00b4  eb e6                          jmp     recorded0
