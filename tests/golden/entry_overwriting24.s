  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  56                             push    rsi
  0004  9f                             lahf
  0005  0f 90 c0                       seto    al
  0008  50                             push    rax
restart0:
  0009  48 8d 0d 70 01 00 00           lea     rcx, [rel section0]
  0010  64 48 89 0c 25 28 09 00 00     mov     [fs:0x928], rcx
begin0:
  0019  0f 31                          rdtsc
  001b  48 c1 e2 20                    shl     rdx, 0x20
  001f  48 8d 34 02                    lea     rsi, [rdx + rax]
  0023  64 8b 0c 25 24 09 00 00        mov     ecx, [fs:0x924]
  002b  f3 0f c7 f8                    rdpid   rax
  002f  25 ff 0f 00 00                 and     eax, 0xfff
  0034  39 c8                          cmp     eax, ecx
  0036  75 7a                          jne     stray0
  0038  48 69 c9 00 00 18 00           imul    rcx, 0x180000
  003f  48 03 0d 1a 01 00 00           add     rcx, [rel lines0]
  0046  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0050  48 8b 00                       mov     rax, [rax]
  0053  48 03 81 80 00 00 00           add     rax, [rcx + 0x80]
  005a  48 3b 01                       cmp     rax, [rcx]
  005d  0f 86 db 00 00 00              jbe     full0
  0063  ba 01 00 00 00                 mov     edx, 1
  0068  48 0f c1 11                    xadd    [rcx], rdx
end0:
  006c  89 d0                          mov     eax, edx
  006e  25 ff ff 00 00                 and     eax, 0xffff
  0073  48 8d 04 40                    lea     rax, [rax + rax * 2]
  0077  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  007f  48 89 31                       mov     [rcx], rsi
  0082  48 c1 ea 10                    shr     rdx, 0x10
  0086  c1 e2 16                       shl     edx, 0x16
  0089  48 8b 44 24 30                 mov     rax, [rsp + 0x30]
  008e  48 89 41 10                    mov     [rcx + 0x10], rax
  0092  64 0b 14 25 d0 02 00 00        or      edx, [fs:0x2d0]
  009a  8b 44 24 28                    mov     eax, [rsp + 0x28]
  009e  48 c1 e2 20                    shl     rdx, 0x20
  00a2  48 09 c2                       or      rdx, rax
  00a5  48 89 51 08                    mov     [rcx + 8], rdx
recorded0:
  00a9  58                             pop     rax
  00aa  04 7f                          add     al, 0x7f
  00ac  9e                             sahf
  00ad  5e                             pop     rsi
  00ae  5a                             pop     rdx
  00af  59                             pop     rcx
  00b0  58                             pop     rax
  00b1  c3                             ret
stray0:
  00b2  48 b9 00 10 30 00 00 7f 00 00  mov     rcx, 0x7f0000301000
retry0:
  00bc  48 8b 31                       mov     rsi, [rcx]
  00bf  0f 31                          rdtsc
  00c1  48 c1 e2 20                    shl     rdx, 0x20
  00c5  48 09 c2                       or      rdx, rax
  00c8  48 89 f0                       mov     rax, rsi
  00cb  48 89 d6                       mov     rsi, rdx
  00ce  48 ba 40 00 00 00 00 7e 00 00  mov     rdx, 0x7e0000000040
  00d8  48 8b 12                       mov     rdx, [rdx]
  00db  48 03 91 80 00 00 00           add     rdx, [rcx + 0x80]
  00e2  48 39 d0                       cmp     rax, rdx
  00e5  73 57                          jae     full0
  00e7  48 8d 50 01                    lea     rdx, [rax + 1]
  00eb  f0 48 0f b1 11                 lock cmpxchg [rcx], rdx
  00f0  75 ca                          jne     retry0
  00f2  48 89 c2                       mov     rdx, rax
  00f5  89 d0                          mov     eax, edx
  00f7  25 ff ff 00 00                 and     eax, 0xffff
  00fc  48 8d 04 40                    lea     rax, [rax + rax * 2]
  0100  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  0108  48 89 31                       mov     [rcx], rsi
  010b  48 c1 ea 10                    shr     rdx, 0x10
  010f  c1 e2 16                       shl     edx, 0x16
  0112  48 8b 44 24 30                 mov     rax, [rsp + 0x30]
  0117  48 89 41 10                    mov     [rcx + 0x10], rax
  011b  64 8b 04 25 d0 02 00 00        mov     eax, [fs:0x2d0]
  0123  25 ff ff 3f 00                 and     eax, 0x3fffff
  0128  09 c2                          or      edx, eax
stray_no_tls0:
  012a  8b 44 24 28                    mov     eax, [rsp + 0x28]
  012e  48 c1 e2 20                    shl     rdx, 0x20
  0132  48 09 c2                       or      rdx, rax
  0135  48 89 51 08                    mov     [rcx + 8], rdx
  0139  e9 6b ff ff ff                 jmp     recorded0
full0:
  013e  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0148  48 8b 00                       mov     rax, [rax]
  014b  48 85 c0                       test    rax, rax
  014e  0f 84 55 ff ff ff              je      recorded0
  0154  f0 48 ff 41 08                 lock inc qword [rcx + 8]
  0159  e9 4b ff ff ff                 jmp     recorded0
  015e  cc                             int3
  015f  cc                             int3
lines0:
  0160  00 10 00 00 00 7f 00 00        dq 0x7f0000001000
  0168  53 30 05 53                    dd 0x53053053
abort0:
  016c  e9 98 fe ff ff                 jmp     restart0
  0171  cc                             int3
  0172  cc                             int3
  0173  cc                             int3
  0174  cc                             int3
  0175  cc                             int3
  0176  cc                             int3
  0177  cc                             int3
  0178  cc                             int3
  0179  cc                             int3
  017a  cc                             int3
  017b  cc                             int3
  017c  cc                             int3
  017d  cc                             int3
  017e  cc                             int3
  017f  cc                             int3
section0:
  0180  00 00 00 00 00 00 00 00        dq 0x0
  0188  19 00 00 00 10 7f 00 00        dq begin0
  0190  53 00 00 00 00 00 00 00        dq 0x53
  0198  6c 01 00 00 10 7f 00 00        dq abort0
