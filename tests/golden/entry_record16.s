  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  56                             push    rsi
  0004  9f                             lahf
  0005  0f 90 c0                       seto    al
  0008  50                             push    rax
  0009  f3 0f c7 f9                    rdpid   rcx
  000d  81 e1 ff 0f 00 00              and     ecx, 0xfff
  0013  48 be 00 10 00 00 00 7f 00 00  mov     rsi, 0x7f0000001000
  001d  48 69 c9 00 00 10 00           imul    rcx, 0x100000
  0024  48 01 ce                       add     rsi, rcx
retry0:
  0027  48 8b 0e                       mov     rcx, [rsi]
  002a  0f 31                          rdtsc
  002c  48 c1 e2 20                    shl     rdx, 0x20
  0030  48 09 c2                       or      rdx, rax
  0033  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  003d  48 8b 00                       mov     rax, [rax]
  0040  48 03 86 80 00 00 00           add     rax, [rsi + 0x80]
  0047  48 39 c1                       cmp     rcx, rax
  004a  73 54                          jae     full0
  004c  48 89 c8                       mov     rax, rcx
  004f  48 8d 48 01                    lea     rcx, [rax + 1]
  0053  f0 48 0f b1 0e                 lock cmpxchg [rsi], rcx
  0058  75 cd                          jne     retry0
  005a  89 c1                          mov     ecx, eax
  005c  81 e1 ff ff 00 00              and     ecx, 0xffff
  0062  48 01 c9                       add     rcx, rcx
  0065  48 89 94 ce 00 01 00 00        mov     [rsi + rcx * 8 + 0x100], rdx
  006d  48 c1 e8 10                    shr     rax, 0x10
  0071  c1 e0 16                       shl     eax, 0x16
  0074  64 8b 14 25 d0 02 00 00        mov     edx, [fs:0x2d0]
  007c  81 e2 ff ff 3f 00              and     edx, 0x3fffff
  0082  09 d0                          or      eax, edx
no_tls0:
  0084  8b 54 24 28                    mov     edx, [rsp + 0x28]
  0088  48 c1 e0 20                    shl     rax, 0x20
  008c  48 09 d0                       or      rax, rdx
  008f  48 89 84 ce 08 01 00 00        mov     [rsi + rcx * 8 + 0x108], rax
recorded0:
  0097  58                             pop     rax
  0098  04 7f                          add     al, 0x7f
  009a  9e                             sahf
  009b  5e                             pop     rsi
  009c  5a                             pop     rdx
  009d  59                             pop     rcx
  009e  58                             pop     rax
  009f  c3                             ret
full0:
  00a0  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  00aa  48 8b 00                       mov     rax, [rax]
  00ad  48 85 c0                       test    rax, rax
  00b0  74 e5                          je      recorded0
  00b2  f0 48 ff 46 08                 lock inc qword [rsi + 8]
  00b7  eb de                          jmp     recorded0
