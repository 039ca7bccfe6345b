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
  0036  75 75                          jne     stray0
  0038  48 69 c9 00 00 18 00           imul    rcx, 0x180000
  003f  48 03 0d 12 01 00 00           add     rcx, [rel lines0]
  0046  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0050  48 8b 00                       mov     rax, [rax]
  0053  48 03 81 80 00 00 00           add     rax, [rcx + 0x80]
  005a  48 3b 01                       cmp     rax, [rcx]
  005d  0f 86 d1 00 00 00              jbe     full0
  0063  ba 01 00 00 00                 mov     edx, 1
  0068  48 0f c1 11                    xadd    [rcx], rdx
end0:
  006c  89 d0                          mov     eax, edx
  006e  25 ff ff 00 00                 and     eax, 0xffff
  0073  48 8d 04 40                    lea     rax, [rax + rax * 2]
  0077  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  007f  48 89 31                       mov     [rcx], rsi
  0082  48 c1 ea 10                    shr     rdx, 0x10
  0086  8b 44 24 28                    mov     eax, [rsp + 0x28]
  008a  89 41 08                       mov     [rcx + 8], eax
  008d  c1 e2 16                       shl     edx, 0x16
  0090  48 8b 44 24 30                 mov     rax, [rsp + 0x30]
  0095  48 89 41 10                    mov     [rcx + 0x10], rax
  0099  64 0b 14 25 d0 02 00 00        or      edx, [fs:0x2d0]
  00a1  89 51 0c                       mov     [rcx + 0xc], edx
recorded0:
  00a4  58                             pop     rax
  00a5  04 7f                          add     al, 0x7f
  00a7  9e                             sahf
  00a8  5e                             pop     rsi
  00a9  5a                             pop     rdx
  00aa  59                             pop     rcx
  00ab  58                             pop     rax
  00ac  c3                             ret
stray0:
  00ad  48 b9 00 10 30 00 00 7f 00 00  mov     rcx, 0x7f0000301000
retry0:
  00b7  48 8b 31                       mov     rsi, [rcx]
  00ba  0f 31                          rdtsc
  00bc  48 c1 e2 20                    shl     rdx, 0x20
  00c0  48 09 c2                       or      rdx, rax
  00c3  48 89 f0                       mov     rax, rsi
  00c6  48 89 d6                       mov     rsi, rdx
  00c9  48 ba 40 00 00 00 00 7e 00 00  mov     rdx, 0x7e0000000040
  00d3  48 8b 12                       mov     rdx, [rdx]
  00d6  48 03 91 80 00 00 00           add     rdx, [rcx + 0x80]
  00dd  48 39 d0                       cmp     rax, rdx
  00e0  73 52                          jae     full0
  00e2  48 8d 50 01                    lea     rdx, [rax + 1]
  00e6  f0 48 0f b1 11                 lock cmpxchg [rcx], rdx
  00eb  75 ca                          jne     retry0
  00ed  48 89 c2                       mov     rdx, rax
  00f0  89 d0                          mov     eax, edx
  00f2  25 ff ff 00 00                 and     eax, 0xffff
  00f7  48 8d 04 40                    lea     rax, [rax + rax * 2]
  00fb  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  0103  48 89 31                       mov     [rcx], rsi
  0106  48 c1 ea 10                    shr     rdx, 0x10
  010a  8b 44 24 28                    mov     eax, [rsp + 0x28]
  010e  89 41 08                       mov     [rcx + 8], eax
  0111  c1 e2 16                       shl     edx, 0x16
  0114  48 8b 44 24 30                 mov     rax, [rsp + 0x30]
  0119  48 89 41 10                    mov     [rcx + 0x10], rax
  011d  64 8b 04 25 d0 02 00 00        mov     eax, [fs:0x2d0]
  0125  25 ff ff 3f 00                 and     eax, 0x3fffff
  012a  09 c2                          or      edx, eax
stray_no_tls0:
  012c  89 51 0c                       mov     [rcx + 0xc], edx
  012f  e9 70 ff ff ff                 jmp     recorded0
full0:
  0134  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  013e  48 8b 00                       mov     rax, [rax]
  0141  48 85 c0                       test    rax, rax
  0144  0f 84 5a ff ff ff              je      recorded0
  014a  f0 48 ff 41 08                 lock inc qword [rcx + 8]
  014f  e9 50 ff ff ff                 jmp     recorded0
  0154  cc                             int3
  0155  cc                             int3
  0156  cc                             int3
  0157  cc                             int3
lines0:
  0158  00 10 00 00 00 7f 00 00        dq 0x7f0000001000
  0160  53 30 05 53                    dd 0x53053053
abort0:
  0164  e9 a0 fe ff ff                 jmp     restart0
  0169  cc                             int3
  016a  cc                             int3
  016b  cc                             int3
  016c  cc                             int3
  016d  cc                             int3
  016e  cc                             int3
  016f  cc                             int3
  0170  cc                             int3
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
  0198  64 01 00 00 10 7f 00 00        dq abort0
