  0000  9c                             pushf
  0001  fc                             cld
  0002  53                             push    rbx
  0003  55                             push    rbp
  0004  41 52                          push    r10
  0006  41 53                          push    r11
  0008  41 54                          push    r12
  000a  41 55                          push    r13
  000c  41 56                          push    r14
  000e  41 57                          push    r15
  0010  41 50                          push    r8
  0012  41 51                          push    r9
  0014  48 89 e5                       mov     rbp, rsp
  0017  48 81 ec c0 00 00 00           sub     rsp, 0xc0
  001e  48 8b 84 24 60 01 00 00        mov     rax, [rsp + 0x160]
  0026  8b 40 f3                       mov     eax, [rax - 0xd]
  0029  48 6b c0 58                    imul    rax, 0x58
  002d  48 b9 00 00 30 00 00 7e 00 00  mov     rcx, 0x7e0000300000
  0037  48 8b 04 01                    mov     rax, [rcx + rax]
  003b  48 89 84 24 b0 00 00 00        mov     [rsp + 0xb0], rax
  0043  48 b8 40 00 20 00 00 7e 00 00  mov     rax, 0x7e0000200040
  004d  f0 48 ff 00                    lock inc qword [rax]
  0051  48 8b 84 24 d0 00 00 00        mov     rax, [rsp + 0xd0]
  0059  48 89 04 24                    mov     [rsp], rax
  005d  48 8b 84 24 d8 00 00 00        mov     rax, [rsp + 0xd8]
  0065  48 89 44 24 08                 mov     [rsp + 8], rax
  006a  48 8b 84 24 e0 00 00 00        mov     rax, [rsp + 0xe0]
  0072  48 89 44 24 10                 mov     [rsp + 0x10], rax
  0077  48 8b 84 24 e8 00 00 00        mov     rax, [rsp + 0xe8]
  007f  48 89 44 24 18                 mov     [rsp + 0x18], rax
  0084  48 8b 84 24 00 01 00 00        mov     rax, [rsp + 0x100]
  008c  48 89 44 24 20                 mov     [rsp + 0x20], rax
  0091  48 8b 84 24 08 01 00 00        mov     rax, [rsp + 0x108]
  0099  48 89 44 24 28                 mov     [rsp + 0x28], rax
  009e  48 8b 84 24 f0 00 00 00        mov     rax, [rsp + 0xf0]
  00a6  48 89 44 24 30                 mov     [rsp + 0x30], rax
  00ab  48 8b 84 24 f8 00 00 00        mov     rax, [rsp + 0xf8]
  00b3  48 89 44 24 38                 mov     [rsp + 0x38], rax
  00b8  48 8b 84 24 28 01 00 00        mov     rax, [rsp + 0x128]
  00c0  48 89 44 24 40                 mov     [rsp + 0x40], rax
  00c5  48 8b 84 24 30 01 00 00        mov     rax, [rsp + 0x130]
  00cd  48 89 44 24 48                 mov     [rsp + 0x48], rax
  00d2  48 8b 84 24 58 01 00 00        mov     rax, [rsp + 0x158]
  00da  48 89 44 24 50                 mov     [rsp + 0x50], rax
  00df  48 8b 84 24 50 01 00 00        mov     rax, [rsp + 0x150]
  00e7  48 89 44 24 58                 mov     [rsp + 0x58], rax
  00ec  48 8b 84 24 48 01 00 00        mov     rax, [rsp + 0x148]
  00f4  48 89 44 24 60                 mov     [rsp + 0x60], rax
  00f9  48 8b 84 24 40 01 00 00        mov     rax, [rsp + 0x140]
  0101  48 89 44 24 68                 mov     [rsp + 0x68], rax
  0106  48 8b 84 24 38 01 00 00        mov     rax, [rsp + 0x138]
  010e  48 89 44 24 70                 mov     [rsp + 0x70], rax
  0113  48 c7 44 24 78 ff ff ff ff     mov     qword [rsp + 0x78], 0xffffffffffffffff
  011c  48 8b 84 24 b0 00 00 00        mov     rax, [rsp + 0xb0]
  0124  48 89 84 24 80 00 00 00        mov     [rsp + 0x80], rax
  012c  48 c7 84 24 88 00 00 00 33 00 00 00 mov     qword [rsp + 0x88], 0x33
  0138  8b 45 50                       mov     eax, [rbp + 0x50]
  013b  25 2a f7 ff ff                 and     eax, 0xfffff72a
  0140  0f b6 8c 24 21 01 00 00        movzx   ecx, byte [rsp + 0x121]
  0148  09 c8                          or      eax, ecx
  014a  0f b6 8c 24 20 01 00 00        movzx   ecx, byte [rsp + 0x120]
  0152  c1 e1 0b                       shl     ecx, 0xb
  0155  09 c8                          or      eax, ecx
  0157  48 89 84 24 90 00 00 00        mov     [rsp + 0x90], rax
  015f  48 8b 84 24 60 01 00 00        mov     rax, [rsp + 0x160]
  0167  8b 48 f7                       mov     ecx, [rax - 9]
  016a  48 8d 84 24 68 01 00 00        lea     rax, [rsp + 0x168]
  0172  48 01 c8                       add     rax, rcx
  0175  48 89 84 24 98 00 00 00        mov     [rsp + 0x98], rax
  017d  48 c7 84 24 a0 00 00 00 2b 00 00 00 mov     qword [rsp + 0xa0], 0x2b
  0189  48 c7 84 24 a8 00 00 00 00 00 00 00 mov     qword [rsp + 0xa8], 0
  0195  48 8b bc 24 b0 00 00 00        mov     rdi, [rsp + 0xb0]
  019d  48 8b b4 24 68 01 00 00        mov     rsi, [rsp + 0x168]
  01a5  48 ba 00 00 20 00 00 7e 00 00  mov     rdx, 0x7e0000200000
  01af  48 89 e1                       mov     rcx, rsp
  01b2  48 b8 00 00 10 00 00 7e 00 00  mov     rax, 0x7e0000100000
  01bc  48 83 e4 f0                    and     rsp, 0xfffffffffffffff0
  01c0  ff d0                          call    rax
  01c2  48 8d a5 40 ff ff ff           lea     rsp, [rbp - 0xc0]
  01c9  48 b8 40 00 20 00 00 7e 00 00  mov     rax, 0x7e0000200040
  01d3  f0 48 ff 08                    lock dec qword [rax]
called0:
  01d7  48 89 ec                       mov     rsp, rbp
  01da  41 59                          pop     r9
  01dc  41 58                          pop     r8
  01de  41 5f                          pop     r15
  01e0  41 5e                          pop     r14
  01e2  41 5d                          pop     r13
  01e4  41 5c                          pop     r12
  01e6  41 5b                          pop     r11
  01e8  41 5a                          pop     r10
  01ea  5d                             pop     rbp
  01eb  5b                             pop     rbx
  01ec  9d                             popf
  01ed  c3                             ret
