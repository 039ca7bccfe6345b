  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  56                             push    rsi
  0004  9f                             lahf
  0005  0f 90 c0                       seto    al
  0008  50                             push    rax
  0009  f3 0f c7 f9                    rdpid   rcx
  000d  81 e1 ff 0f 00 00              and     ecx, 0xfff
  0013  48 69 c9 00 00 18 00           imul    rcx, 0x180000
  001a  48 03 0d 9f 00 00 00           add     rcx, [rel lines0]
retry0:
  0021  48 8b 31                       mov     rsi, [rcx]
  0024  0f 31                          rdtsc
  0026  48 c1 e2 20                    shl     rdx, 0x20
  002a  48 09 c2                       or      rdx, rax
  002d  48 89 f0                       mov     rax, rsi
  0030  48 89 d6                       mov     rsi, rdx
  0033  48 ba 40 00 00 00 00 7e 00 00  mov     rdx, 0x7e0000000040
  003d  48 8b 12                       mov     rdx, [rdx]
  0040  48 03 91 80 00 00 00           add     rdx, [rcx + 0x80]
  0047  48 39 d0                       cmp     rax, rdx
  004a  73 56                          jae     full0
  004c  48 8d 50 01                    lea     rdx, [rax + 1]
  0050  f0 48 0f b1 11                 lock cmpxchg [rcx], rdx
  0055  75 ca                          jne     retry0
  0057  48 89 c2                       mov     rdx, rax
  005a  89 d0                          mov     eax, edx
  005c  25 ff ff 00 00                 and     eax, 0xffff
  0061  48 8d 04 40                    lea     rax, [rax + rax * 2]
  0065  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  006d  48 89 31                       mov     [rcx], rsi
  0070  48 c1 ea 10                    shr     rdx, 0x10
  0074  8b 44 24 28                    mov     eax, [rsp + 0x28]
  0078  89 41 08                       mov     [rcx + 8], eax
  007b  c1 e2 16                       shl     edx, 0x16
  007e  48 8b 44 24 30                 mov     rax, [rsp + 0x30]
  0083  48 89 41 10                    mov     [rcx + 0x10], rax
  0087  64 8b 04 25 d0 02 00 00        mov     eax, [fs:0x2d0]
  008f  25 ff ff 3f 00                 and     eax, 0x3fffff
  0094  09 c2                          or      edx, eax
no_tls0:
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
full0:
  00a2  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  00ac  48 8b 00                       mov     rax, [rax]
  00af  48 85 c0                       test    rax, rax
  00b2  74 e5                          je      recorded0
  00b4  f0 48 ff 41 08                 lock inc qword [rcx + 8]
  00b9  eb de                          jmp     recorded0
  00bb  cc                             int3
  00bc  cc                             int3
  00bd  cc                             int3
  00be  cc                             int3
  00bf  cc                             int3
lines0:
  00c0  00 10 00 00 00 7f 00 00        dq 0x7f0000001000
