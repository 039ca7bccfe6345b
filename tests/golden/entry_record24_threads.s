  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  56                             push    rsi
  0004  9f                             lahf
  0005  0f 90 c0                       seto    al
  0008  50                             push    rax
  0009  64 8b 14 25 d0 02 00 00        mov     edx, [fs:0x2d0]
  0011  81 e2 ff ff 3f 00              and     edx, 0x3fffff
  0017  48 b9 00 10 90 00 00 7f 00 00  mov     rcx, 0x7f0000901000
  0021  0f b7 81 00 f0 ff ff           movzx   eax, word [rcx - 0x1000]
  0028  32 04 11                       xor     al, [rcx + rdx]
  002b  84 e0                          test    al, ah
  002d  0f 84 9c 00 00 00              je      recorded0
  0033  f3 0f c7 f9                    rdpid   rcx
  0037  81 e1 ff 0f 00 00              and     ecx, 0xfff
  003d  48 be 00 10 00 00 00 7f 00 00  mov     rsi, 0x7f0000001000
  0047  48 69 c9 00 00 18 00           imul    rcx, 0x180000
  004e  48 01 ce                       add     rsi, rcx
retry0:
  0051  48 8b 0e                       mov     rcx, [rsi]
  0054  0f 31                          rdtsc
  0056  48 c1 e2 20                    shl     rdx, 0x20
  005a  48 09 c2                       or      rdx, rax
  005d  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0067  48 8b 00                       mov     rax, [rax]
  006a  48 03 86 80 00 00 00           add     rax, [rsi + 0x80]
  0071  48 39 c1                       cmp     rcx, rax
  0074  73 62                          jae     full0
  0076  48 89 c8                       mov     rax, rcx
  0079  48 8d 48 01                    lea     rcx, [rax + 1]
  007d  f0 48 0f b1 0e                 lock cmpxchg [rsi], rcx
  0082  75 cd                          jne     retry0
  0084  89 c1                          mov     ecx, eax
  0086  81 e1 ff ff 00 00              and     ecx, 0xffff
  008c  48 8d 0c 49                    lea     rcx, [rcx + rcx * 2]
  0090  48 89 94 ce 00 01 00 00        mov     [rsi + rcx * 8 + 0x100], rdx
  0098  48 c1 e8 10                    shr     rax, 0x10
  009c  48 8b 54 24 30                 mov     rdx, [rsp + 0x30]
  00a1  48 89 94 ce 10 01 00 00        mov     [rsi + rcx * 8 + 0x110], rdx
  00a9  c1 e0 16                       shl     eax, 0x16
  00ac  64 8b 14 25 d0 02 00 00        mov     edx, [fs:0x2d0]
  00b4  81 e2 ff ff 3f 00              and     edx, 0x3fffff
  00ba  09 d0                          or      eax, edx
no_tls0:
  00bc  8b 54 24 28                    mov     edx, [rsp + 0x28]
  00c0  48 c1 e0 20                    shl     rax, 0x20
  00c4  48 09 d0                       or      rax, rdx
  00c7  48 89 84 ce 08 01 00 00        mov     [rsi + rcx * 8 + 0x108], rax
recorded0:
  00cf  58                             pop     rax
  00d0  04 7f                          add     al, 0x7f
  00d2  9e                             sahf
  00d3  5e                             pop     rsi
  00d4  5a                             pop     rdx
  00d5  59                             pop     rcx
  00d6  58                             pop     rax
  00d7  c3                             ret
full0:
  00d8  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  00e2  48 8b 00                       mov     rax, [rax]
  00e5  48 85 c0                       test    rax, rax
  00e8  74 e5                          je      recorded0
  00ea  f0 48 ff 46 08                 lock inc qword [rsi + 8]
  00ef  eb de                          jmp     recorded0
