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
  0020  48 81 ec 40 02 00 00           sub     rsp, 0x240
  0027  49 89 e4                       mov     r12, rsp
  002a  0f 11 84 24 a0 00 00 00        movups  [rsp + 0xa0], xmm0
  0032  0f 11 8c 24 b0 00 00 00        movups  [rsp + 0xb0], xmm1
  003a  0f 11 94 24 c0 00 00 00        movups  [rsp + 0xc0], xmm2
  0042  0f 11 9c 24 d0 00 00 00        movups  [rsp + 0xd0], xmm3
  004a  0f 11 a4 24 e0 00 00 00        movups  [rsp + 0xe0], xmm4
  0052  0f 11 ac 24 f0 00 00 00        movups  [rsp + 0xf0], xmm5
  005a  0f 11 b4 24 00 01 00 00        movups  [rsp + 0x100], xmm6
  0062  0f 11 bc 24 10 01 00 00        movups  [rsp + 0x110], xmm7
  006a  44 0f 11 84 24 20 01 00 00     movups  [rsp + 0x120], xmm8
  0073  44 0f 11 8c 24 30 01 00 00     movups  [rsp + 0x130], xmm9
  007c  44 0f 11 94 24 40 01 00 00     movups  [rsp + 0x140], xmm10
  0085  44 0f 11 9c 24 50 01 00 00     movups  [rsp + 0x150], xmm11
  008e  44 0f 11 a4 24 60 01 00 00     movups  [rsp + 0x160], xmm12
  0097  44 0f 11 ac 24 70 01 00 00     movups  [rsp + 0x170], xmm13
  00a0  44 0f 11 b4 24 80 01 00 00     movups  [rsp + 0x180], xmm14
  00a9  44 0f 11 bc 24 90 01 00 00     movups  [rsp + 0x190], xmm15
  00b2  0f ae 5c 24 18                 stmxcsr [rsp + 0x18]
  00b7  48 c7 84 24 00 02 00 00 02 00 00 00 mov     qword [rsp + 0x200], 2
  00c3  48 8d a5 c0 fc ff ff           lea     rsp, [rbp - 0x340]
  00ca  c7 04 24 80 1f 00 00           mov     dword [rsp], 0x1f80
  00d1  0f ae 14 24                    ldmxcsr [rsp]
  00d5  48 8b 84 24 c0 03 00 00        mov     rax, [rsp + 0x3c0]
  00dd  8b 40 f3                       mov     eax, [rax - 0xd]
  00e0  48 6b c0 58                    imul    rax, 0x58
  00e4  48 b9 00 00 30 00 00 7e 00 00  mov     rcx, 0x7e0000300000
  00ee  48 8b 04 01                    mov     rax, [rcx + rax]
  00f2  48 89 84 24 b0 00 00 00        mov     [rsp + 0xb0], rax
  00fa  48 b8 40 00 20 00 00 7e 00 00  mov     rax, 0x7e0000200040
  0104  f0 48 ff 00                    lock inc qword [rax]
  0108  48 8b 84 24 40 03 00 00        mov     rax, [rsp + 0x340]
  0110  48 89 04 24                    mov     [rsp], rax
  0114  48 8b 84 24 48 03 00 00        mov     rax, [rsp + 0x348]
  011c  48 89 44 24 08                 mov     [rsp + 8], rax
  0121  48 8b 84 24 50 03 00 00        mov     rax, [rsp + 0x350]
  0129  48 89 44 24 10                 mov     [rsp + 0x10], rax
  012e  48 8b 84 24 58 03 00 00        mov     rax, [rsp + 0x358]
  0136  48 89 44 24 18                 mov     [rsp + 0x18], rax
  013b  48 8b 84 24 90 03 00 00        mov     rax, [rsp + 0x390]
  0143  48 89 44 24 20                 mov     [rsp + 0x20], rax
  0148  48 8b 84 24 98 03 00 00        mov     rax, [rsp + 0x398]
  0150  48 89 44 24 28                 mov     [rsp + 0x28], rax
  0155  48 8b 84 24 60 03 00 00        mov     rax, [rsp + 0x360]
  015d  48 89 44 24 30                 mov     [rsp + 0x30], rax
  0162  48 8b 84 24 68 03 00 00        mov     rax, [rsp + 0x368]
  016a  48 89 44 24 38                 mov     [rsp + 0x38], rax
  016f  48 8b 84 24 70 03 00 00        mov     rax, [rsp + 0x370]
  0177  48 89 44 24 40                 mov     [rsp + 0x40], rax
  017c  48 8b 84 24 78 03 00 00        mov     rax, [rsp + 0x378]
  0184  48 89 44 24 48                 mov     [rsp + 0x48], rax
  0189  48 8b 84 24 b0 03 00 00        mov     rax, [rsp + 0x3b0]
  0191  48 89 44 24 50                 mov     [rsp + 0x50], rax
  0196  48 8b 84 24 a8 03 00 00        mov     rax, [rsp + 0x3a8]
  019e  48 89 44 24 58                 mov     [rsp + 0x58], rax
  01a3  48 8b 84 24 a0 03 00 00        mov     rax, [rsp + 0x3a0]
  01ab  48 89 44 24 60                 mov     [rsp + 0x60], rax
  01b0  48 8b 84 24 88 03 00 00        mov     rax, [rsp + 0x388]
  01b8  48 89 44 24 68                 mov     [rsp + 0x68], rax
  01bd  48 8b 84 24 80 03 00 00        mov     rax, [rsp + 0x380]
  01c5  48 89 44 24 70                 mov     [rsp + 0x70], rax
  01ca  48 c7 44 24 78 ff ff ff ff     mov     qword [rsp + 0x78], 0xffffffffffffffff
  01d3  48 8b 84 24 b0 00 00 00        mov     rax, [rsp + 0xb0]
  01db  48 89 84 24 80 00 00 00        mov     [rsp + 0x80], rax
  01e3  48 c7 84 24 88 00 00 00 33 00 00 00 mov     qword [rsp + 0x88], 0x33
  01ef  48 8b 84 24 b8 03 00 00        mov     rax, [rsp + 0x3b8]
  01f7  48 89 84 24 90 00 00 00        mov     [rsp + 0x90], rax
  01ff  48 8b 84 24 c0 03 00 00        mov     rax, [rsp + 0x3c0]
  0207  8b 48 f7                       mov     ecx, [rax - 9]
  020a  48 8d 84 24 c8 03 00 00        lea     rax, [rsp + 0x3c8]
  0212  48 01 c8                       add     rax, rcx
  0215  48 89 84 24 98 00 00 00        mov     [rsp + 0x98], rax
  021d  48 c7 84 24 a0 00 00 00 2b 00 00 00 mov     qword [rsp + 0xa0], 0x2b
  0229  4c 89 a4 24 a8 00 00 00        mov     [rsp + 0xa8], r12
  0231  48 8b bc 24 b0 00 00 00        mov     rdi, [rsp + 0xb0]
  0239  48 8b b4 24 c8 03 00 00        mov     rsi, [rsp + 0x3c8]
  0241  48 ba 00 00 20 00 00 7e 00 00  mov     rdx, 0x7e0000200000
  024b  48 89 e1                       mov     rcx, rsp
  024e  48 b8 00 00 10 00 00 7e 00 00  mov     rax, 0x7e0000100000
  0258  48 83 e4 f0                    and     rsp, 0xfffffffffffffff0
  025c  ff d0                          call    rax
  025e  48 8d a5 c0 fc ff ff           lea     rsp, [rbp - 0x340]
  0265  48 b8 40 00 20 00 00 7e 00 00  mov     rax, 0x7e0000200040
  026f  f0 48 ff 08                    lock dec qword [rax]
called0:
  0273  41 0f 10 84 24 a0 00 00 00     movups  xmm0, [r12 + 0xa0]
  027c  41 0f 10 8c 24 b0 00 00 00     movups  xmm1, [r12 + 0xb0]
  0285  41 0f 10 94 24 c0 00 00 00     movups  xmm2, [r12 + 0xc0]
  028e  41 0f 10 9c 24 d0 00 00 00     movups  xmm3, [r12 + 0xd0]
  0297  41 0f 10 a4 24 e0 00 00 00     movups  xmm4, [r12 + 0xe0]
  02a0  41 0f 10 ac 24 f0 00 00 00     movups  xmm5, [r12 + 0xf0]
  02a9  41 0f 10 b4 24 00 01 00 00     movups  xmm6, [r12 + 0x100]
  02b2  41 0f 10 bc 24 10 01 00 00     movups  xmm7, [r12 + 0x110]
  02bb  45 0f 10 84 24 20 01 00 00     movups  xmm8, [r12 + 0x120]
  02c4  45 0f 10 8c 24 30 01 00 00     movups  xmm9, [r12 + 0x130]
  02cd  45 0f 10 94 24 40 01 00 00     movups  xmm10, [r12 + 0x140]
  02d6  45 0f 10 9c 24 50 01 00 00     movups  xmm11, [r12 + 0x150]
  02df  45 0f 10 a4 24 60 01 00 00     movups  xmm12, [r12 + 0x160]
  02e8  45 0f 10 ac 24 70 01 00 00     movups  xmm13, [r12 + 0x170]
  02f1  45 0f 10 b4 24 80 01 00 00     movups  xmm14, [r12 + 0x180]
  02fa  45 0f 10 bc 24 90 01 00 00     movups  xmm15, [r12 + 0x190]
  0303  41 0f ae 54 24 18              ldmxcsr [r12 + 0x18]
  0309  48 89 ec                       mov     rsp, rbp
  030c  41 5f                          pop     r15
  030e  41 5e                          pop     r14
  0310  41 5d                          pop     r13
  0312  41 5c                          pop     r12
  0314  41 5b                          pop     r11
  0316  41 5a                          pop     r10
  0318  41 59                          pop     r9
  031a  41 58                          pop     r8
  031c  5f                             pop     rdi
  031d  5e                             pop     rsi
  031e  5d                             pop     rbp
  031f  5b                             pop     rbx
  0320  5a                             pop     rdx
  0321  59                             pop     rcx
  0322  58                             pop     rax
  0323  9d                             popf
  0324  c3                             ret
