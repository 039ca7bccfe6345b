  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  9f                             lahf
  0004  0f 90 c0                       seto    al
  0007  50                             push    rax
  0008  f3 0f c7 f9                    rdpid   rcx
  000c  81 e1 ff 0f 00 00              and     ecx, 0xfff
  0012  48 69 c9 00 00 18 00           imul    rcx, 0x180000
  0019  48 03 0d 88 00 00 00           add     rcx, [rel lines0]
retry0:
  0020  48 8b 01                       mov     rax, [rcx]
  0023  48 ba 40 00 00 00 00 7e 00 00  mov     rdx, 0x7e0000000040
  002d  48 8b 12                       mov     rdx, [rdx]
  0030  48 03 91 80 00 00 00           add     rdx, [rcx + 0x80]
  0037  48 39 d0                       cmp     rax, rdx
  003a  73 52                          jae     full0
  003c  48 8d 50 01                    lea     rdx, [rax + 1]
  0040  f0 48 0f b1 11                 lock cmpxchg [rcx], rdx
  0045  75 d9                          jne     retry0
  0047  48 89 c2                       mov     rdx, rax
  004a  89 d0                          mov     eax, edx
  004c  25 ff ff 00 00                 and     eax, 0xffff
  0051  48 8d 04 40                    lea     rax, [rax + rax * 2]
  0055  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  005d  48 c1 ea 10                    shr     rdx, 0x10
  0061  8b 44 24 20                    mov     eax, [rsp + 0x20]
  0065  89 41 08                       mov     [rcx + 8], eax
  0068  c1 e2 16                       shl     edx, 0x16
  006b  48 8b 44 24 28                 mov     rax, [rsp + 0x28]
  0070  48 89 41 10                    mov     [rcx + 0x10], rax
  0074  64 8b 04 25 d0 02 00 00        mov     eax, [fs:0x2d0]
  007c  25 ff ff 3f 00                 and     eax, 0x3fffff
  0081  09 c2                          or      edx, eax
no_tls0:
  0083  89 51 0c                       mov     [rcx + 0xc], edx
recorded0:
  0086  58                             pop     rax
  0087  04 7f                          add     al, 0x7f
  0089  9e                             sahf
  008a  5a                             pop     rdx
  008b  59                             pop     rcx
  008c  58                             pop     rax
  008d  c3                             ret
full0:
  008e  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0098  48 8b 00                       mov     rax, [rax]
  009b  48 85 c0                       test    rax, rax
  009e  74 e6                          je      recorded0
  00a0  f0 48 ff 41 08                 lock inc qword [rcx + 8]
  00a5  eb df                          jmp     recorded0
  00a7  cc                             int3
lines0:
  00a8  00 10 00 00 00 7f 00 00        dq 0x7f0000001000
