restart0:
  0000  48 8d 0d 59 01 00 00           lea     rcx, [rel section0]
  0007  64 48 89 0c 25 28 09 00 00     mov     [fs:0x928], rcx
begin0:
  0010  0f 31                          rdtsc
  0012  48 c1 e2 20                    shl     rdx, 0x20
  0016  48 8d 34 02                    lea     rsi, [rdx + rax]
  001a  64 8b 0c 25 24 09 00 00        mov     ecx, [fs:0x924]
  0022  f3 0f c7 f8                    rdpid   rax
  0026  25 ff 0f 00 00                 and     eax, 0xfff
  002b  39 c8                          cmp     eax, ecx
  002d  75 6d                          jne     stray0
  002f  48 69 c9 00 00 18 00           imul    rcx, 0x180000
  0036  48 03 0d 0b 01 00 00           add     rcx, [rel lines0]
  003d  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0047  48 8b 00                       mov     rax, [rax]
  004a  48 03 81 80 00 00 00           add     rax, [rcx + 0x80]
  0051  48 3b 01                       cmp     rax, [rcx]
  0054  0f 86 c9 00 00 00              jbe     full0
  005a  ba 01 00 00 00                 mov     edx, 1
  005f  48 0f c1 11                    xadd    [rcx], rdx
end0:
  0063  89 d0                          mov     eax, edx
  0065  25 ff ff 00 00                 and     eax, 0xffff
  006a  48 8d 04 40                    lea     rax, [rax + rax * 2]
  006e  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  0076  48 89 31                       mov     [rcx], rsi
  0079  48 c1 ea 10                    shr     rdx, 0x10
  007d  8b 44 24 48                    mov     eax, [rsp + 0x48]
  0081  89 41 08                       mov     [rcx + 8], eax
  0084  c1 e2 16                       shl     edx, 0x16
  0087  48 8b 44 24 50                 mov     rax, [rsp + 0x50]
  008c  48 89 41 10                    mov     [rcx + 0x10], rax
  0090  64 0b 14 25 d0 02 00 00        or      edx, [fs:0x2d0]
  0098  89 51 0c                       mov     [rcx + 0xc], edx
recorded0:
  009b  c3                             ret
stray0:
  009c  48 b9 00 10 30 00 00 7f 00 00  mov     rcx, 0x7f0000301000
retry0:
  00a6  48 8b 31                       mov     rsi, [rcx]
  00a9  0f 31                          rdtsc
  00ab  48 c1 e2 20                    shl     rdx, 0x20
  00af  48 09 c2                       or      rdx, rax
  00b2  48 89 f0                       mov     rax, rsi
  00b5  48 89 d6                       mov     rsi, rdx
  00b8  48 ba 40 00 00 00 00 7e 00 00  mov     rdx, 0x7e0000000040
  00c2  48 8b 12                       mov     rdx, [rdx]
  00c5  48 03 91 80 00 00 00           add     rdx, [rcx + 0x80]
  00cc  48 39 d0                       cmp     rax, rdx
  00cf  73 52                          jae     full0
  00d1  48 8d 50 01                    lea     rdx, [rax + 1]
  00d5  f0 48 0f b1 11                 lock cmpxchg [rcx], rdx
  00da  75 ca                          jne     retry0
  00dc  48 89 c2                       mov     rdx, rax
  00df  89 d0                          mov     eax, edx
  00e1  25 ff ff 00 00                 and     eax, 0xffff
  00e6  48 8d 04 40                    lea     rax, [rax + rax * 2]
  00ea  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  00f2  48 89 31                       mov     [rcx], rsi
  00f5  48 c1 ea 10                    shr     rdx, 0x10
  00f9  8b 44 24 48                    mov     eax, [rsp + 0x48]
  00fd  89 41 08                       mov     [rcx + 8], eax
  0100  c1 e2 16                       shl     edx, 0x16
  0103  48 8b 44 24 50                 mov     rax, [rsp + 0x50]
  0108  48 89 41 10                    mov     [rcx + 0x10], rax
  010c  64 8b 04 25 d0 02 00 00        mov     eax, [fs:0x2d0]
  0114  25 ff ff 3f 00                 and     eax, 0x3fffff
  0119  09 c2                          or      edx, eax
stray_no_tls0:
  011b  89 51 0c                       mov     [rcx + 0xc], edx
  011e  e9 78 ff ff ff                 jmp     recorded0
full0:
  0123  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  012d  48 8b 00                       mov     rax, [rax]
  0130  48 85 c0                       test    rax, rax
  0133  0f 84 62 ff ff ff              je      recorded0
  0139  f0 48 ff 41 08                 lock inc qword [rcx + 8]
  013e  e9 58 ff ff ff                 jmp     recorded0
  0143  cc                             int3
  0144  cc                             int3
  0145  cc                             int3
  0146  cc                             int3
  0147  cc                             int3
lines0:
  0148  00 10 00 00 00 7f 00 00        dq 0x7f0000001000
  0150  53 30 05 53                    dd 0x53053053
abort0:
  0154  e9 a7 fe ff ff                 jmp     restart0
  0159  cc                             int3
  015a  cc                             int3
  015b  cc                             int3
  015c  cc                             int3
  015d  cc                             int3
  015e  cc                             int3
  015f  cc                             int3
section0:
  0160  00 00 00 00 00 00 00 00        dq 0x0
  0168  10 00 01 00 00 00 00 00        dq begin0
  0170  53 00 00 00 00 00 00 00        dq 0x53
  0178  54 01 01 00 00 00 00 00        dq abort0
