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
  001c  48 81 ec c0 00 00 00           sub     rsp, 0xc0
  0023  48 8b 84 24 40 01 00 00        mov     rax, [rsp + 0x140]
  002b  8b 40 f3                       mov     eax, [rax - 0xd]
  002e  48 6b c0 58                    imul    rax, 0x58
  0032  48 b9 00 00 30 00 00 7e 00 00  mov     rcx, 0x7e0000300000
  003c  48 8b 04 01                    mov     rax, [rcx + rax]
  0040  48 89 84 24 b0 00 00 00        mov     [rsp + 0xb0], rax
  0048  48 b8 40 00 20 00 00 7e 00 00  mov     rax, 0x7e0000200040
  0052  f0 48 ff 00                    lock inc qword [rax]
  0056  48 8b 84 24 c0 00 00 00        mov     rax, [rsp + 0xc0]
  005e  48 89 04 24                    mov     [rsp], rax
  0062  48 8b 84 24 c8 00 00 00        mov     rax, [rsp + 0xc8]
  006a  48 89 44 24 08                 mov     [rsp + 8], rax
  006f  48 8b 84 24 d0 00 00 00        mov     rax, [rsp + 0xd0]
  0077  48 89 44 24 10                 mov     [rsp + 0x10], rax
  007c  48 8b 84 24 d8 00 00 00        mov     rax, [rsp + 0xd8]
  0084  48 89 44 24 18                 mov     [rsp + 0x18], rax
  0089  48 8b 84 24 10 01 00 00        mov     rax, [rsp + 0x110]
  0091  48 89 44 24 20                 mov     [rsp + 0x20], rax
  0096  48 8b 84 24 18 01 00 00        mov     rax, [rsp + 0x118]
  009e  48 89 44 24 28                 mov     [rsp + 0x28], rax
  00a3  48 8b 84 24 e0 00 00 00        mov     rax, [rsp + 0xe0]
  00ab  48 89 44 24 30                 mov     [rsp + 0x30], rax
  00b0  48 8b 84 24 e8 00 00 00        mov     rax, [rsp + 0xe8]
  00b8  48 89 44 24 38                 mov     [rsp + 0x38], rax
  00bd  48 8b 84 24 f0 00 00 00        mov     rax, [rsp + 0xf0]
  00c5  48 89 44 24 40                 mov     [rsp + 0x40], rax
  00ca  48 8b 84 24 f8 00 00 00        mov     rax, [rsp + 0xf8]
  00d2  48 89 44 24 48                 mov     [rsp + 0x48], rax
  00d7  48 8b 84 24 30 01 00 00        mov     rax, [rsp + 0x130]
  00df  48 89 44 24 50                 mov     [rsp + 0x50], rax
  00e4  48 8b 84 24 28 01 00 00        mov     rax, [rsp + 0x128]
  00ec  48 89 44 24 58                 mov     [rsp + 0x58], rax
  00f1  48 8b 84 24 20 01 00 00        mov     rax, [rsp + 0x120]
  00f9  48 89 44 24 60                 mov     [rsp + 0x60], rax
  00fe  48 8b 84 24 08 01 00 00        mov     rax, [rsp + 0x108]
  0106  48 89 44 24 68                 mov     [rsp + 0x68], rax
  010b  48 8b 84 24 00 01 00 00        mov     rax, [rsp + 0x100]
  0113  48 89 44 24 70                 mov     [rsp + 0x70], rax
  0118  48 c7 44 24 78 ff ff ff ff     mov     qword [rsp + 0x78], 0xffffffffffffffff
  0121  48 8b 84 24 b0 00 00 00        mov     rax, [rsp + 0xb0]
  0129  48 89 84 24 80 00 00 00        mov     [rsp + 0x80], rax
  0131  48 c7 84 24 88 00 00 00 33 00 00 00 mov     qword [rsp + 0x88], 0x33
  013d  48 8b 84 24 38 01 00 00        mov     rax, [rsp + 0x138]
  0145  48 89 84 24 90 00 00 00        mov     [rsp + 0x90], rax
  014d  48 8b 84 24 40 01 00 00        mov     rax, [rsp + 0x140]
  0155  8b 48 f7                       mov     ecx, [rax - 9]
  0158  48 8d 84 24 48 01 00 00        lea     rax, [rsp + 0x148]
  0160  48 01 c8                       add     rax, rcx
  0163  48 89 84 24 98 00 00 00        mov     [rsp + 0x98], rax
  016b  48 c7 84 24 a0 00 00 00 2b 00 00 00 mov     qword [rsp + 0xa0], 0x2b
  0177  48 c7 84 24 a8 00 00 00 00 00 00 00 mov     qword [rsp + 0xa8], 0
  0183  48 8b bc 24 b0 00 00 00        mov     rdi, [rsp + 0xb0]
  018b  48 8b b4 24 48 01 00 00        mov     rsi, [rsp + 0x148]
  0193  48 ba 00 00 20 00 00 7e 00 00  mov     rdx, 0x7e0000200000
  019d  48 89 e1                       mov     rcx, rsp
  01a0  48 b8 00 00 10 00 00 7e 00 00  mov     rax, 0x7e0000100000
  01aa  48 83 e4 f0                    and     rsp, 0xfffffffffffffff0
  01ae  ff d0                          call    rax
  01b0  48 8d a5 40 ff ff ff           lea     rsp, [rbp - 0xc0]
  01b7  48 b8 40 00 20 00 00 7e 00 00  mov     rax, 0x7e0000200040
  01c1  f0 48 ff 08                    lock dec qword [rax]
called0:
  01c5  48 89 ec                       mov     rsp, rbp
  01c8  41 5f                          pop     r15
  01ca  41 5e                          pop     r14
  01cc  41 5d                          pop     r13
  01ce  41 5c                          pop     r12
  01d0  41 5b                          pop     r11
  01d2  41 5a                          pop     r10
  01d4  41 59                          pop     r9
  01d6  41 58                          pop     r8
  01d8  5f                             pop     rdi
  01d9  5e                             pop     rsi
  01da  5d                             pop     rbp
  01db  5b                             pop     rbx
  01dc  5a                             pop     rdx
  01dd  59                             pop     rcx
  01de  58                             pop     rax
  01df  9d                             popf
  01e0  c3                             ret
