  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  56                             push    rsi
  0004  9f                             lahf
  0005  0f 90 c0                       seto    al
  0008  50                             push    rax
restart0:
  0009  48 8d 0d f0 01 00 00           lea     rcx, [rel section0]
  0010  64 48 89 0c 25 28 09 00 00     mov     [fs:0x928], rcx
begin0:
  0019  64 48 63 04 25 24 09 00 00     movsxd  rax, [fs:0x924]
  0022  f3 0f c7 f9                    rdpid   rcx
  0026  81 e1 ff 0f 00 00              and     ecx, 0xfff
  002c  39 c8                          cmp     eax, ecx
  002e  0f 85 cf 00 00 00              jne     slow0
  0034  48 b9 80 02 00 00 00 7e 00 00  mov     rcx, 0x7e0000000280
  003e  48 8b 0c c1                    mov     rcx, [rcx + rax * 8]
  0042  48 85 c9                       test    rcx, rcx
  0045  0f 84 b8 00 00 00              je      slow0
  004b  48 8b 44 24 28                 mov     rax, [rsp + 0x28]
  0050  8b 40 f3                       mov     eax, [rax - 0xd]
  0053  48 ff 84 c1 00 10 00 00        inc     qword [rcx + rax * 8 + 0x1000]
end0:
counted0:
restart1:
  005b  48 8d 0d be 01 00 00           lea     rcx, [rel section1]
  0062  64 48 89 0c 25 28 09 00 00     mov     [fs:0x928], rcx
begin1:
  006b  0f 31                          rdtsc
  006d  48 c1 e2 20                    shl     rdx, 0x20
  0071  48 8d 34 02                    lea     rsi, [rdx + rax]
  0075  64 8b 0c 25 24 09 00 00        mov     ecx, [fs:0x924]
  007d  f3 0f c7 f8                    rdpid   rax
  0081  25 ff 0f 00 00                 and     eax, 0xfff
  0086  39 c8                          cmp     eax, ecx
  0088  0f 85 ab 00 00 00              jne     stray1
  008e  48 69 c9 00 00 18 00           imul    rcx, 0x180000
  0095  48 03 0d 44 01 00 00           add     rcx, [rel lines1]
  009c  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  00a6  48 8b 00                       mov     rax, [rax]
  00a9  48 03 81 80 00 00 00           add     rax, [rcx + 0x80]
  00b0  48 3b 01                       cmp     rax, [rcx]
  00b3  0f 86 07 01 00 00              jbe     full1
  00b9  ba 01 00 00 00                 mov     edx, 1
  00be  48 0f c1 11                    xadd    [rcx], rdx
end1:
  00c2  89 d0                          mov     eax, edx
  00c4  25 ff ff 00 00                 and     eax, 0xffff
  00c9  48 8d 04 40                    lea     rax, [rax + rax * 2]
  00cd  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  00d5  48 89 31                       mov     [rcx], rsi
  00d8  48 c1 ea 10                    shr     rdx, 0x10
  00dc  8b 44 24 28                    mov     eax, [rsp + 0x28]
  00e0  89 41 08                       mov     [rcx + 8], eax
  00e3  c1 e2 16                       shl     edx, 0x16
  00e6  48 8b 44 24 30                 mov     rax, [rsp + 0x30]
  00eb  48 89 41 10                    mov     [rcx + 0x10], rax
  00ef  64 0b 14 25 d0 02 00 00        or      edx, [fs:0x2d0]
  00f7  89 51 0c                       mov     [rcx + 0xc], edx
recorded1:
  00fa  58                             pop     rax
  00fb  04 7f                          add     al, 0x7f
  00fd  9e                             sahf
  00fe  5e                             pop     rsi
  00ff  5a                             pop     rdx
  0100  59                             pop     rcx
  0101  58                             pop     rax
  0102  c3                             ret
slow0:
  0103  48 b9 00 00 00 00 00 7e 00 00  mov     rcx, 0x7e0000000000
  010d  48 8b 09                       mov     rcx, [rcx]
  0110  48 85 c9                       test    rcx, rcx
  0113  0f 84 42 ff ff ff              je      restart1
  0119  48 b9 00 00 80 00 00 7f 00 00  mov     rcx, 0x7f0000800000
  0123  48 8b 44 24 28                 mov     rax, [rsp + 0x28]
  0128  8b 40 f3                       mov     eax, [rax - 0xd]
  012b  f0 48 ff 84 c1 00 10 00 00     lock inc qword [rcx + rax * 8 + 0x1000]
  0134  e9 22 ff ff ff                 jmp     restart1
stray1:
  0139  48 b9 00 10 30 00 00 7f 00 00  mov     rcx, 0x7f0000301000
retry1:
  0143  48 8b 31                       mov     rsi, [rcx]
  0146  0f 31                          rdtsc
  0148  48 c1 e2 20                    shl     rdx, 0x20
  014c  48 09 c2                       or      rdx, rax
  014f  48 89 f0                       mov     rax, rsi
  0152  48 89 d6                       mov     rsi, rdx
  0155  48 ba 40 00 00 00 00 7e 00 00  mov     rdx, 0x7e0000000040
  015f  48 8b 12                       mov     rdx, [rdx]
  0162  48 03 91 80 00 00 00           add     rdx, [rcx + 0x80]
  0169  48 39 d0                       cmp     rax, rdx
  016c  73 52                          jae     full1
  016e  48 8d 50 01                    lea     rdx, [rax + 1]
  0172  f0 48 0f b1 11                 lock cmpxchg [rcx], rdx
  0177  75 ca                          jne     retry1
  0179  48 89 c2                       mov     rdx, rax
  017c  89 d0                          mov     eax, edx
  017e  25 ff ff 00 00                 and     eax, 0xffff
  0183  48 8d 04 40                    lea     rax, [rax + rax * 2]
  0187  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  018f  48 89 31                       mov     [rcx], rsi
  0192  48 c1 ea 10                    shr     rdx, 0x10
  0196  8b 44 24 28                    mov     eax, [rsp + 0x28]
  019a  89 41 08                       mov     [rcx + 8], eax
  019d  c1 e2 16                       shl     edx, 0x16
  01a0  48 8b 44 24 30                 mov     rax, [rsp + 0x30]
  01a5  48 89 41 10                    mov     [rcx + 0x10], rax
  01a9  64 8b 04 25 d0 02 00 00        mov     eax, [fs:0x2d0]
  01b1  25 ff ff 3f 00                 and     eax, 0x3fffff
  01b6  09 c2                          or      edx, eax
stray_no_tls1:
  01b8  89 51 0c                       mov     [rcx + 0xc], edx
  01bb  e9 3a ff ff ff                 jmp     recorded1
full1:
  01c0  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  01ca  48 8b 00                       mov     rax, [rax]
  01cd  48 85 c0                       test    rax, rax
  01d0  0f 84 24 ff ff ff              je      recorded1
  01d6  f0 48 ff 41 08                 lock inc qword [rcx + 8]
  01db  e9 1a ff ff ff                 jmp     recorded1
lines1:
  01e0  00 10 00 00 00 7f 00 00        dq 0x7f0000001000
  01e8  53 30 05 53                    dd 0x53053053
abort0:
  01ec  e9 18 fe ff ff                 jmp     restart0
  01f1  53 30 05 53                    dd 0x53053053
abort1:
  01f5  e9 61 fe ff ff                 jmp     restart1
  01fa  cc                             int3
  01fb  cc                             int3
  01fc  cc                             int3
  01fd  cc                             int3
  01fe  cc                             int3
  01ff  cc                             int3
section0:
  0200  00 00 00 00 00 00 00 00        dq 0x0
  0208  19 00 00 00 10 7f 00 00        dq begin0
  0210  42 00 00 00 00 00 00 00        dq 0x42
  0218  ec 01 00 00 10 7f 00 00        dq abort0
section1:
  0220  00 00 00 00 00 00 00 00        dq 0x0
  0228  6b 00 00 00 10 7f 00 00        dq begin1
  0230  57 00 00 00 00 00 00 00        dq 0x57
  0238  f5 01 00 00 10 7f 00 00        dq abort1
