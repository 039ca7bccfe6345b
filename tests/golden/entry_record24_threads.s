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
  002d  0f 84 9b 00 00 00              je      recorded0
restart0:
  0033  48 8d 0d 66 01 00 00           lea     rcx, [rel section0]
  003a  64 48 89 0c 25 28 09 00 00     mov     [fs:0x928], rcx
begin0:
  0043  0f 31                          rdtsc
  0045  48 c1 e2 20                    shl     rdx, 0x20
  0049  48 8d 34 02                    lea     rsi, [rdx + rax]
  004d  64 8b 0c 25 24 09 00 00        mov     ecx, [fs:0x924]
  0055  f3 0f c7 f8                    rdpid   rax
  0059  25 ff 0f 00 00                 and     eax, 0xfff
  005e  39 c8                          cmp     eax, ecx
  0060  75 75                          jne     stray0
  0062  48 69 c9 00 00 18 00           imul    rcx, 0x180000
  0069  48 03 0d 10 01 00 00           add     rcx, [rel lines0]
  0070  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  007a  48 8b 00                       mov     rax, [rax]
  007d  48 03 81 80 00 00 00           add     rax, [rcx + 0x80]
  0084  48 3b 01                       cmp     rax, [rcx]
  0087  0f 86 d1 00 00 00              jbe     full0
  008d  ba 01 00 00 00                 mov     edx, 1
  0092  48 0f c1 11                    xadd    [rcx], rdx
end0:
  0096  89 d0                          mov     eax, edx
  0098  25 ff ff 00 00                 and     eax, 0xffff
  009d  48 8d 04 40                    lea     rax, [rax + rax * 2]
  00a1  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  00a9  48 89 31                       mov     [rcx], rsi
  00ac  48 c1 ea 10                    shr     rdx, 0x10
  00b0  8b 44 24 28                    mov     eax, [rsp + 0x28]
  00b4  89 41 08                       mov     [rcx + 8], eax
  00b7  c1 e2 16                       shl     edx, 0x16
  00ba  48 8b 44 24 30                 mov     rax, [rsp + 0x30]
  00bf  48 89 41 10                    mov     [rcx + 0x10], rax
  00c3  64 0b 14 25 d0 02 00 00        or      edx, [fs:0x2d0]
  00cb  89 51 0c                       mov     [rcx + 0xc], edx
recorded0:
  00ce  58                             pop     rax
  00cf  04 7f                          add     al, 0x7f
  00d1  9e                             sahf
  00d2  5e                             pop     rsi
  00d3  5a                             pop     rdx
  00d4  59                             pop     rcx
  00d5  58                             pop     rax
  00d6  c3                             ret
stray0:
  00d7  48 b9 00 10 30 00 00 7f 00 00  mov     rcx, 0x7f0000301000
retry0:
  00e1  48 8b 31                       mov     rsi, [rcx]
  00e4  0f 31                          rdtsc
  00e6  48 c1 e2 20                    shl     rdx, 0x20
  00ea  48 09 c2                       or      rdx, rax
  00ed  48 89 f0                       mov     rax, rsi
  00f0  48 89 d6                       mov     rsi, rdx
  00f3  48 ba 40 00 00 00 00 7e 00 00  mov     rdx, 0x7e0000000040
  00fd  48 8b 12                       mov     rdx, [rdx]
  0100  48 03 91 80 00 00 00           add     rdx, [rcx + 0x80]
  0107  48 39 d0                       cmp     rax, rdx
  010a  73 52                          jae     full0
  010c  48 8d 50 01                    lea     rdx, [rax + 1]
  0110  f0 48 0f b1 11                 lock cmpxchg [rcx], rdx
  0115  75 ca                          jne     retry0
  0117  48 89 c2                       mov     rdx, rax
  011a  89 d0                          mov     eax, edx
  011c  25 ff ff 00 00                 and     eax, 0xffff
  0121  48 8d 04 40                    lea     rax, [rax + rax * 2]
  0125  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  012d  48 89 31                       mov     [rcx], rsi
  0130  48 c1 ea 10                    shr     rdx, 0x10
  0134  8b 44 24 28                    mov     eax, [rsp + 0x28]
  0138  89 41 08                       mov     [rcx + 8], eax
  013b  c1 e2 16                       shl     edx, 0x16
  013e  48 8b 44 24 30                 mov     rax, [rsp + 0x30]
  0143  48 89 41 10                    mov     [rcx + 0x10], rax
  0147  64 8b 04 25 d0 02 00 00        mov     eax, [fs:0x2d0]
  014f  25 ff ff 3f 00                 and     eax, 0x3fffff
  0154  09 c2                          or      edx, eax
stray_no_tls0:
  0156  89 51 0c                       mov     [rcx + 0xc], edx
  0159  e9 70 ff ff ff                 jmp     recorded0
full0:
  015e  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0168  48 8b 00                       mov     rax, [rax]
  016b  48 85 c0                       test    rax, rax
  016e  0f 84 5a ff ff ff              je      recorded0
  0174  f0 48 ff 41 08                 lock inc qword [rcx + 8]
  0179  e9 50 ff ff ff                 jmp     recorded0
  017e  cc                             int3
  017f  cc                             int3
lines0:
  0180  00 10 00 00 00 7f 00 00        dq 0x7f0000001000
  0188  53 30 05 53                    dd 0x53053053
abort0:
  018c  e9 a2 fe ff ff                 jmp     restart0
  0191  cc                             int3
  0192  cc                             int3
  0193  cc                             int3
  0194  cc                             int3
  0195  cc                             int3
  0196  cc                             int3
  0197  cc                             int3
  0198  cc                             int3
  0199  cc                             int3
  019a  cc                             int3
  019b  cc                             int3
  019c  cc                             int3
  019d  cc                             int3
  019e  cc                             int3
  019f  cc                             int3
section0:
  01a0  00 00 00 00 00 00 00 00        dq 0x0
  01a8  43 00 00 00 10 7f 00 00        dq begin0
  01b0  53 00 00 00 00 00 00 00        dq 0x53
  01b8  8c 01 00 00 10 7f 00 00        dq abort0
