  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  56                             push    rsi
  0004  57                             push    rdi
  0005  9f                             lahf
  0006  0f 90 c0                       seto    al
  0009  50                             push    rax
  000a  f3 0f c7 ff                    rdpid   rdi
  000e  81 e7 ff 0f 00 00              and     edi, 0xfff
  0014  48 c1 e7 06                    shl     rdi, 6
  0018  48 be 00 10 00 00 00 7f 00 00  mov     rsi, 0x7f0000001000
  0022  48 01 fe                       add     rsi, rdi
retry0:
  0025  48 8b 0e                       mov     rcx, [rsi]
  0028  0f 31                          rdtsc
  002a  48 c1 e2 20                    shl     rdx, 0x20
  002e  48 09 c2                       or      rdx, rax
  0031  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  003b  48 8b 00                       mov     rax, [rax]
  003e  48 03 86 80 00 00 00           add     rax, [rsi + 0x80]
  0045  48 39 c1                       cmp     rcx, rax
  0048  73 6c                          jae     full0
  004a  48 89 c8                       mov     rax, rcx
  004d  48 8d 48 01                    lea     rcx, [rax + 1]
  0051  f0 48 0f b1 0e                 lock cmpxchg [rsi], rcx
  0056  75 cd                          jne     retry0
  0058  48 69 ff 00 40 00 00           imul    rdi, 0x4000
  005f  89 c1                          mov     ecx, eax
  0061  81 e1 ff ff 00 00              and     ecx, 0xffff
  0067  48 c1 e1 04                    shl     rcx, 4
  006b  48 01 f9                       add     rcx, rdi
  006e  48 bf 00 20 00 00 00 7f 00 00  mov     rdi, 0x7f0000002000
  0078  48 01 f9                       add     rcx, rdi
  007b  48 89 11                       mov     [rcx], rdx
  007e  48 c1 e8 10                    shr     rax, 0x10
  0082  c1 e0 16                       shl     eax, 0x16
  0085  f3 48 0f ae c2                 rdfsbase rdx
  008a  48 85 d2                       test    rdx, rdx
  008d  74 0e                          je      no_tls0
  008f  8b 92 d0 02 00 00              mov     edx, [rdx + 0x2d0]
  0095  81 e2 ff ff 3f 00              and     edx, 0x3fffff
  009b  09 d0                          or      eax, edx
no_tls0:
  009d  48 c1 e0 20                    shl     rax, 0x20
  00a1  8b 74 24 30                    mov     esi, [rsp + 0x30]
  00a5  48 09 f0                       or      rax, rsi
  00a8  48 89 41 08                    mov     [rcx + 8], rax
recorded0:
  00ac  58                             pop     rax
  00ad  04 7f                          add     al, 0x7f
  00af  9e                             sahf
  00b0  5f                             pop     rdi
  00b1  5e                             pop     rsi
  00b2  5a                             pop     rdx
  00b3  59                             pop     rcx
  00b4  58                             pop     rax
  00b5  c3                             ret
full0:
  00b6  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  00c0  48 8b 00                       mov     rax, [rax]
  00c3  48 85 c0                       test    rax, rax
  00c6  74 e4                          je      recorded0
  00c8  f0 48 ff 46 08                 lock inc qword [rsi + 8]
  00cd  eb dd                          jmp     recorded0
