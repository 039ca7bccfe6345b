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
  0048  73 79                          jae     full0
  004a  48 89 c8                       mov     rax, rcx
  004d  48 8d 48 01                    lea     rcx, [rax + 1]
  0051  f0 48 0f b1 0e                 lock cmpxchg [rsi], rcx
  0056  75 cd                          jne     retry0
  0058  48 69 ff 00 60 00 00           imul    rdi, 0x6000
  005f  89 c1                          mov     ecx, eax
  0061  81 e1 ff ff 00 00              and     ecx, 0xffff
  0067  48 8d 0c 49                    lea     rcx, [rcx + rcx * 2]
  006b  48 c1 e1 03                    shl     rcx, 3
  006f  48 01 f9                       add     rcx, rdi
  0072  48 bf 00 20 00 00 00 7f 00 00  mov     rdi, 0x7f0000002000
  007c  48 01 f9                       add     rcx, rdi
  007f  48 89 11                       mov     [rcx], rdx
  0082  48 c1 e8 10                    shr     rax, 0x10
  0086  c1 e0 16                       shl     eax, 0x16
  0089  f3 48 0f ae c2                 rdfsbase rdx
  008e  48 85 d2                       test    rdx, rdx
  0091  74 0e                          je      no_tls0
  0093  8b 92 d0 02 00 00              mov     edx, [rdx + 0x2d0]
  0099  81 e2 ff ff 3f 00              and     edx, 0x3fffff
  009f  09 d0                          or      eax, edx
no_tls0:
  00a1  48 c1 e0 20                    shl     rax, 0x20
  00a5  8b 74 24 30                    mov     esi, [rsp + 0x30]
  00a9  48 09 f0                       or      rax, rsi
  00ac  48 8b 74 24 38                 mov     rsi, [rsp + 0x38]
  00b1  48 89 71 10                    mov     [rcx + 0x10], rsi
  00b5  48 89 41 08                    mov     [rcx + 8], rax
recorded0:
  00b9  58                             pop     rax
  00ba  04 7f                          add     al, 0x7f
  00bc  9e                             sahf
  00bd  5f                             pop     rdi
  00be  5e                             pop     rsi
  00bf  5a                             pop     rdx
  00c0  59                             pop     rcx
  00c1  58                             pop     rax
  00c2  c3                             ret
full0:
  00c3  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  00cd  48 8b 00                       mov     rax, [rax]
  00d0  48 85 c0                       test    rax, rax
  00d3  74 e4                          je      recorded0
  00d5  f0 48 ff 46 08                 lock inc qword [rsi + 8]
  00da  eb dd                          jmp     recorded0
