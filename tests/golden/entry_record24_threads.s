  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  56                             push    rsi
  0004  57                             push    rdi
  0005  9f                             lahf
  0006  0f 90 c0                       seto    al
  0009  50                             push    rax
  000a  64 8b 14 25 d0 02 00 00        mov     edx, [fs:0x2d0]
  0012  81 e2 ff ff 3f 00              and     edx, 0x3fffff
  0018  48 b9 00 10 90 00 00 7f 00 00  mov     rcx, 0x7f0000901000
  0022  0f b7 81 00 f0 ff ff           movzx   eax, word [rcx - 0x1000]
  0029  32 04 11                       xor     al, [rcx + rdx]
  002c  84 e0                          test    al, ah
  002e  0f 84 af 00 00 00              je      recorded0
  0034  f3 0f c7 ff                    rdpid   rdi
  0038  81 e7 ff 0f 00 00              and     edi, 0xfff
  003e  48 c1 e7 06                    shl     rdi, 6
  0042  48 be 00 10 00 00 00 7f 00 00  mov     rsi, 0x7f0000001000
  004c  48 01 fe                       add     rsi, rdi
retry0:
  004f  48 8b 0e                       mov     rcx, [rsi]
  0052  0f 31                          rdtsc
  0054  48 c1 e2 20                    shl     rdx, 0x20
  0058  48 09 c2                       or      rdx, rax
  005b  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0065  48 8b 00                       mov     rax, [rax]
  0068  48 03 86 80 00 00 00           add     rax, [rsi + 0x80]
  006f  48 39 c1                       cmp     rcx, rax
  0072  73 79                          jae     full0
  0074  48 89 c8                       mov     rax, rcx
  0077  48 8d 48 01                    lea     rcx, [rax + 1]
  007b  f0 48 0f b1 0e                 lock cmpxchg [rsi], rcx
  0080  75 cd                          jne     retry0
  0082  48 69 ff 00 60 00 00           imul    rdi, 0x6000
  0089  89 c1                          mov     ecx, eax
  008b  81 e1 ff ff 00 00              and     ecx, 0xffff
  0091  48 8d 0c 49                    lea     rcx, [rcx + rcx * 2]
  0095  48 c1 e1 03                    shl     rcx, 3
  0099  48 01 f9                       add     rcx, rdi
  009c  48 bf 00 20 00 00 00 7f 00 00  mov     rdi, 0x7f0000002000
  00a6  48 01 f9                       add     rcx, rdi
  00a9  48 89 11                       mov     [rcx], rdx
  00ac  48 c1 e8 10                    shr     rax, 0x10
  00b0  c1 e0 16                       shl     eax, 0x16
  00b3  f3 48 0f ae c2                 rdfsbase rdx
  00b8  48 85 d2                       test    rdx, rdx
  00bb  74 0e                          je      no_tls0
  00bd  8b 92 d0 02 00 00              mov     edx, [rdx + 0x2d0]
  00c3  81 e2 ff ff 3f 00              and     edx, 0x3fffff
  00c9  09 d0                          or      eax, edx
no_tls0:
  00cb  48 c1 e0 20                    shl     rax, 0x20
  00cf  8b 74 24 30                    mov     esi, [rsp + 0x30]
  00d3  48 09 f0                       or      rax, rsi
  00d6  48 8b 74 24 38                 mov     rsi, [rsp + 0x38]
  00db  48 89 71 10                    mov     [rcx + 0x10], rsi
  00df  48 89 41 08                    mov     [rcx + 8], rax
recorded0:
  00e3  58                             pop     rax
  00e4  04 7f                          add     al, 0x7f
  00e6  9e                             sahf
  00e7  5f                             pop     rdi
  00e8  5e                             pop     rsi
  00e9  5a                             pop     rdx
  00ea  59                             pop     rcx
  00eb  58                             pop     rax
  00ec  c3                             ret
full0:
  00ed  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  00f7  48 8b 00                       mov     rax, [rax]
  00fa  48 85 c0                       test    rax, rax
  00fd  74 e4                          je      recorded0
  00ff  f0 48 ff 46 08                 lock inc qword [rsi + 8]
  0104  eb dd                          jmp     recorded0
