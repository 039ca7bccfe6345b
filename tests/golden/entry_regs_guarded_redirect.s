  0000  9c                             pushf
  0001  fc                             cld
  0002  50                             push    rax
  0003  51                             push    rcx
  0004  52                             push    rdx
  0005  53                             push    rbx
  0006  55                             push    rbp
  0007  56                             push    rsi
  0008  57                             push    rdi
  0009  41 50                          push    r8
  000b  41 51                          push    r9
  000d  41 52                          push    r10
  000f  41 53                          push    r11
  0011  41 54                          push    r12
  0013  41 55                          push    r13
  0015  41 56                          push    r14
  0017  41 57                          push    r15
  0019  48 89 e5                       mov     rbp, rsp
  001c  48 83 e4 c0                    and     rsp, 0xffffffffffffffc0
  0020  48 81 ec 40 03 00 00           sub     rsp, 0x340
  0027  49 89 e4                       mov     r12, rsp
  002a  31 d2                          xor     edx, edx
  002c  48 89 94 24 00 02 00 00        mov     [rsp + 0x200], rdx
  0034  48 89 94 24 08 02 00 00        mov     [rsp + 0x208], rdx
  003c  48 89 94 24 10 02 00 00        mov     [rsp + 0x210], rdx
  0044  48 89 94 24 18 02 00 00        mov     [rsp + 0x218], rdx
  004c  48 89 94 24 20 02 00 00        mov     [rsp + 0x220], rdx
  0054  48 89 94 24 28 02 00 00        mov     [rsp + 0x228], rdx
  005c  48 89 94 24 30 02 00 00        mov     [rsp + 0x230], rdx
  0064  48 89 94 24 38 02 00 00        mov     [rsp + 0x238], rdx
  006c  b8 07 00 00 00                 mov     eax, 7
  0071  48 0f c7 24 24                 xsavec64 [rsp]
  0076  db e3                          fninit
  0078  c5 f8 77                       vzeroupper
  007b  48 8d a5 c0 fb ff ff           lea     rsp, [rbp - 0x440]
  0082  c7 04 24 80 1f 00 00           mov     dword [rsp], 0x1f80
  0089  0f ae 14 24                    ldmxcsr [rsp]
  008d  48 8b 84 24 c0 04 00 00        mov     rax, [rsp + 0x4c0]
  0095  8b 40 f3                       mov     eax, [rax - 0xd]
  0098  48 6b c0 58                    imul    rax, 0x58
  009c  48 b9 00 00 30 00 00 7e 00 00  mov     rcx, 0x7e0000300000
  00a6  48 8b 04 01                    mov     rax, [rcx + rax]
  00aa  48 89 84 24 b0 00 00 00        mov     [rsp + 0xb0], rax
  00b2  f3 48 0f ae c7                 rdfsbase rdi
  00b7  48 85 ff                       test    rdi, rdi
  00ba  0f 84 2b 03 00 00              je      guard_full0
  00c0  48 be 15 7c 4a 7f b9 79 37 9e  mov     rsi, 0x9e3779b97f4a7c15
  00ca  48 0f af f7                    imul    rsi, rdi
  00ce  48 c1 ee 38                    shr     rsi, 0x38
  00d2  48 69 f6 80 00 00 00           imul    rsi, 0x80
  00d9  48 b8 00 00 40 00 00 7e 00 00  mov     rax, 0x7e0000400000
  00e3  48 01 c6                       add     rsi, rax
guard_scan0:
  00e6  4d 31 c9                       xor     r9, r9
  00e9  4d 31 c0                       xor     r8, r8
  00ec  48 8d 56 70                    lea     rdx, [rsi + 0x70]
guard_look0:
  00f0  48 8b 02                       mov     rax, [rdx]
  00f3  48 85 c0                       test    rax, rax
  00f6  74 1a                          je      guard_empty0
  00f8  48 39 f8                       cmp     rax, rdi
  00fb  75 1d                          jne     guard_next0
  00fd  48 39 6a 08                    cmp     [rdx + 8], rbp
  0101  77 14                          ja      guard_live0
  0103  48 c7 42 08 00 00 00 00        mov     qword [rdx + 8], 0
  010b  48 c7 02 00 00 00 00           mov     qword [rdx], 0
guard_empty0:
  0112  49 89 d0                       mov     r8, rdx
  0115  eb 03                          jmp     guard_next0
guard_live0:
  0117  49 ff c1                       inc     r9
guard_next0:
  011a  48 83 ea 10                    sub     rdx, 0x10
  011e  48 39 f2                       cmp     rdx, rsi
  0121  73 cd                          jae     guard_look0
  0123  49 83 f9 02                    cmp     r9, 2
  0127  0f 83 be 02 00 00              jae     guard_full0
  012d  4d 85 c0                       test    r8, r8
  0130  0f 84 b5 02 00 00              je      guard_full0
  0136  31 c0                          xor     eax, eax
  0138  49 8b 50 08                    mov     rdx, [r8 + 8]
  013c  48 89 fb                       mov     rbx, rdi
  013f  48 89 e9                       mov     rcx, rbp
  0142  f0 49 0f c7 08                 lock cmpxchg16b [r8]
  0147  75 9d                          jne     guard_scan0
guard_taken0:
  0149  4c 89 84 24 b8 00 00 00        mov     [rsp + 0xb8], r8
  0151  48 b8 40 00 20 00 00 7e 00 00  mov     rax, 0x7e0000200040
  015b  f0 48 ff 00                    lock inc qword [rax]
  015f  48 8b 84 24 40 04 00 00        mov     rax, [rsp + 0x440]
  0167  48 89 04 24                    mov     [rsp], rax
  016b  48 8b 84 24 48 04 00 00        mov     rax, [rsp + 0x448]
  0173  48 89 44 24 08                 mov     [rsp + 8], rax
  0178  48 8b 84 24 50 04 00 00        mov     rax, [rsp + 0x450]
  0180  48 89 44 24 10                 mov     [rsp + 0x10], rax
  0185  48 8b 84 24 58 04 00 00        mov     rax, [rsp + 0x458]
  018d  48 89 44 24 18                 mov     [rsp + 0x18], rax
  0192  48 8b 84 24 90 04 00 00        mov     rax, [rsp + 0x490]
  019a  48 89 44 24 20                 mov     [rsp + 0x20], rax
  019f  48 8b 84 24 98 04 00 00        mov     rax, [rsp + 0x498]
  01a7  48 89 44 24 28                 mov     [rsp + 0x28], rax
  01ac  48 8b 84 24 60 04 00 00        mov     rax, [rsp + 0x460]
  01b4  48 89 44 24 30                 mov     [rsp + 0x30], rax
  01b9  48 8b 84 24 68 04 00 00        mov     rax, [rsp + 0x468]
  01c1  48 89 44 24 38                 mov     [rsp + 0x38], rax
  01c6  48 8b 84 24 70 04 00 00        mov     rax, [rsp + 0x470]
  01ce  48 89 44 24 40                 mov     [rsp + 0x40], rax
  01d3  48 8b 84 24 78 04 00 00        mov     rax, [rsp + 0x478]
  01db  48 89 44 24 48                 mov     [rsp + 0x48], rax
  01e0  48 8b 84 24 b0 04 00 00        mov     rax, [rsp + 0x4b0]
  01e8  48 89 44 24 50                 mov     [rsp + 0x50], rax
  01ed  48 8b 84 24 a8 04 00 00        mov     rax, [rsp + 0x4a8]
  01f5  48 89 44 24 58                 mov     [rsp + 0x58], rax
  01fa  48 8b 84 24 a0 04 00 00        mov     rax, [rsp + 0x4a0]
  0202  48 89 44 24 60                 mov     [rsp + 0x60], rax
  0207  48 8b 84 24 88 04 00 00        mov     rax, [rsp + 0x488]
  020f  48 89 44 24 68                 mov     [rsp + 0x68], rax
  0214  48 8b 84 24 80 04 00 00        mov     rax, [rsp + 0x480]
  021c  48 89 44 24 70                 mov     [rsp + 0x70], rax
  0221  48 c7 44 24 78 ff ff ff ff     mov     qword [rsp + 0x78], 0xffffffffffffffff
  022a  48 8b 84 24 b0 00 00 00        mov     rax, [rsp + 0xb0]
  0232  48 89 84 24 80 00 00 00        mov     [rsp + 0x80], rax
  023a  48 c7 84 24 88 00 00 00 33 00 00 00 mov     qword [rsp + 0x88], 0x33
  0246  48 8b 84 24 b8 04 00 00        mov     rax, [rsp + 0x4b8]
  024e  48 89 84 24 90 00 00 00        mov     [rsp + 0x90], rax
  0256  48 8b 84 24 c0 04 00 00        mov     rax, [rsp + 0x4c0]
  025e  8b 48 f7                       mov     ecx, [rax - 9]
  0261  48 8d 84 24 c8 04 00 00        lea     rax, [rsp + 0x4c8]
  0269  48 01 c8                       add     rax, rcx
  026c  48 89 84 24 98 00 00 00        mov     [rsp + 0x98], rax
  0274  48 c7 84 24 a0 00 00 00 2b 00 00 00 mov     qword [rsp + 0xa0], 0x2b
  0280  4c 89 a4 24 a8 00 00 00        mov     [rsp + 0xa8], r12
  0288  48 8b bc 24 b0 00 00 00        mov     rdi, [rsp + 0xb0]
  0290  48 8b b4 24 c8 04 00 00        mov     rsi, [rsp + 0x4c8]
  0298  48 ba 00 00 20 00 00 7e 00 00  mov     rdx, 0x7e0000200000
  02a2  48 89 e1                       mov     rcx, rsp
  02a5  48 b8 00 00 10 00 00 7e 00 00  mov     rax, 0x7e0000100000
  02af  48 83 e4 f0                    and     rsp, 0xfffffffffffffff0
  02b3  ff d0                          call    rax
  02b5  48 8d a5 c0 fb ff ff           lea     rsp, [rbp - 0x440]
  02bc  48 b8 40 00 20 00 00 7e 00 00  mov     rax, 0x7e0000200040
  02c6  f0 48 ff 08                    lock dec qword [rax]
  02ca  48 8b 94 24 b8 00 00 00        mov     rdx, [rsp + 0xb8]
  02d2  48 39 6a 08                    cmp     [rdx + 8], rbp
  02d6  75 0f                          jne     guard_gone0
  02d8  48 c7 42 08 00 00 00 00        mov     qword [rdx + 8], 0
  02e0  48 c7 02 00 00 00 00           mov     qword [rdx], 0
guard_gone0:
  02e7  48 8b 04 24                    mov     rax, [rsp]
  02eb  48 89 84 24 40 04 00 00        mov     [rsp + 0x440], rax
  02f3  48 8b 44 24 08                 mov     rax, [rsp + 8]
  02f8  48 89 84 24 48 04 00 00        mov     [rsp + 0x448], rax
  0300  48 8b 44 24 10                 mov     rax, [rsp + 0x10]
  0305  48 89 84 24 50 04 00 00        mov     [rsp + 0x450], rax
  030d  48 8b 44 24 18                 mov     rax, [rsp + 0x18]
  0312  48 89 84 24 58 04 00 00        mov     [rsp + 0x458], rax
  031a  48 8b 44 24 20                 mov     rax, [rsp + 0x20]
  031f  48 89 84 24 90 04 00 00        mov     [rsp + 0x490], rax
  0327  48 8b 44 24 28                 mov     rax, [rsp + 0x28]
  032c  48 89 84 24 98 04 00 00        mov     [rsp + 0x498], rax
  0334  48 8b 44 24 30                 mov     rax, [rsp + 0x30]
  0339  48 89 84 24 60 04 00 00        mov     [rsp + 0x460], rax
  0341  48 8b 44 24 38                 mov     rax, [rsp + 0x38]
  0346  48 89 84 24 68 04 00 00        mov     [rsp + 0x468], rax
  034e  48 8b 44 24 40                 mov     rax, [rsp + 0x40]
  0353  48 89 84 24 70 04 00 00        mov     [rsp + 0x470], rax
  035b  48 8b 44 24 48                 mov     rax, [rsp + 0x48]
  0360  48 89 84 24 78 04 00 00        mov     [rsp + 0x478], rax
  0368  48 8b 44 24 50                 mov     rax, [rsp + 0x50]
  036d  48 89 84 24 b0 04 00 00        mov     [rsp + 0x4b0], rax
  0375  48 8b 44 24 58                 mov     rax, [rsp + 0x58]
  037a  48 89 84 24 a8 04 00 00        mov     [rsp + 0x4a8], rax
  0382  48 8b 44 24 60                 mov     rax, [rsp + 0x60]
  0387  48 89 84 24 a0 04 00 00        mov     [rsp + 0x4a0], rax
  038f  48 8b 44 24 68                 mov     rax, [rsp + 0x68]
  0394  48 89 84 24 88 04 00 00        mov     [rsp + 0x488], rax
  039c  48 8b 44 24 70                 mov     rax, [rsp + 0x70]
  03a1  48 89 84 24 80 04 00 00        mov     [rsp + 0x480], rax
  03a9  48 8b 84 24 80 00 00 00        mov     rax, [rsp + 0x80]
  03b1  48 3b 84 24 b0 00 00 00        cmp     rax, [rsp + 0xb0]
  03b9  74 08                          je      called0
  03bb  48 89 84 24 c0 04 00 00        mov     [rsp + 0x4c0], rax
unchanged0:
called0:
  03c3  b8 07 00 00 00                 mov     eax, 7
  03c8  31 d2                          xor     edx, edx
  03ca  49 0f ae 2c 24                 xrstor64 [r12]
  03cf  48 89 ec                       mov     rsp, rbp
  03d2  41 5f                          pop     r15
  03d4  41 5e                          pop     r14
  03d6  41 5d                          pop     r13
  03d8  41 5c                          pop     r12
  03da  41 5b                          pop     r11
  03dc  41 5a                          pop     r10
  03de  41 59                          pop     r9
  03e0  41 58                          pop     r8
  03e2  5f                             pop     rdi
  03e3  5e                             pop     rsi
  03e4  5d                             pop     rbp
  03e5  5b                             pop     rbx
  03e6  5a                             pop     rdx
  03e7  59                             pop     rcx
  03e8  58                             pop     rax
  03e9  9d                             popf
  03ea  c3                             ret
guard_full0:
  03eb  48 b8 48 00 20 00 00 7e 00 00  mov     rax, 0x7e0000200048
  03f5  f0 48 ff 00                    lock inc qword [rax]
  03f9  eb c8                          jmp     called0
