  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  56                             push    rsi
  0004  57                             push    rdi
  0005  9f                             lahf
  0006  0f 90 c0                       seto    al
  0009  50                             push    rax
  000a  48 8b 44 24 30                 mov     rax, [rsp + 0x30]
  000f  8b 40 f3                       mov     eax, [rax - 0xd]
restart0:
  0012  48 8d 0d 67 01 00 00           lea     rcx, [rel section0]
  0019  64 48 89 0c 25 28 09 00 00     mov     [fs:0x928], rcx
begin0:
  0022  64 48 63 0c 25 24 09 00 00     movsxd  rcx, [fs:0x924]
  002b  f3 0f c7 fa                    rdpid   rdx
  002f  81 e2 ff 0f 00 00              and     edx, 0xfff
  0035  39 ca                          cmp     edx, ecx
  0037  0f 85 dc 00 00 00              jne     slow0
  003d  48 ba 80 02 00 00 00 7e 00 00  mov     rdx, 0x7e0000000280
  0047  48 8b 0c ca                    mov     rcx, [rdx + rcx * 8]
  004b  48 85 c9                       test    rcx, rcx
  004e  0f 84 c5 00 00 00              je      slow0
  0054  48 ff 84 c1 00 10 00 00        inc     qword [rcx + rax * 8 + 0x1000]
end0:
counted0:
  005c  f3 0f c7 ff                    rdpid   rdi
  0060  81 e7 ff 0f 00 00              and     edi, 0xfff
  0066  48 c1 e7 06                    shl     rdi, 6
  006a  48 be 00 10 00 00 00 7f 00 00  mov     rsi, 0x7f0000001000
  0074  48 01 fe                       add     rsi, rdi
retry1:
  0077  48 8b 0e                       mov     rcx, [rsi]
  007a  0f 31                          rdtsc
  007c  48 c1 e2 20                    shl     rdx, 0x20
  0080  48 09 c2                       or      rdx, rax
  0083  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  008d  48 8b 00                       mov     rax, [rax]
  0090  48 03 86 80 00 00 00           add     rax, [rsi + 0x80]
  0097  48 39 c1                       cmp     rcx, rax
  009a  0f 83 a7 00 00 00              jae     full1
  00a0  48 89 c8                       mov     rax, rcx
  00a3  48 8d 48 01                    lea     rcx, [rax + 1]
  00a7  f0 48 0f b1 0e                 lock cmpxchg [rsi], rcx
  00ac  75 c9                          jne     retry1
  00ae  48 69 ff 00 60 00 00           imul    rdi, 0x6000
  00b5  89 c1                          mov     ecx, eax
  00b7  81 e1 ff ff 00 00              and     ecx, 0xffff
  00bd  48 8d 0c 49                    lea     rcx, [rcx + rcx * 2]
  00c1  48 c1 e1 03                    shl     rcx, 3
  00c5  48 01 f9                       add     rcx, rdi
  00c8  48 bf 00 20 00 00 00 7f 00 00  mov     rdi, 0x7f0000002000
  00d2  48 01 f9                       add     rcx, rdi
  00d5  48 89 11                       mov     [rcx], rdx
  00d8  48 c1 e8 10                    shr     rax, 0x10
  00dc  c1 e0 16                       shl     eax, 0x16
  00df  f3 48 0f ae c2                 rdfsbase rdx
  00e4  48 85 d2                       test    rdx, rdx
  00e7  74 0e                          je      no_tls1
  00e9  8b 92 d0 02 00 00              mov     edx, [rdx + 0x2d0]
  00ef  81 e2 ff ff 3f 00              and     edx, 0x3fffff
  00f5  09 d0                          or      eax, edx
no_tls1:
  00f7  48 c1 e0 20                    shl     rax, 0x20
  00fb  8b 74 24 30                    mov     esi, [rsp + 0x30]
  00ff  48 09 f0                       or      rax, rsi
  0102  48 8b 74 24 38                 mov     rsi, [rsp + 0x38]
  0107  48 89 71 10                    mov     [rcx + 0x10], rsi
  010b  48 89 41 08                    mov     [rcx + 8], rax
recorded1:
  010f  58                             pop     rax
  0110  04 7f                          add     al, 0x7f
  0112  9e                             sahf
  0113  5f                             pop     rdi
  0114  5e                             pop     rsi
  0115  5a                             pop     rdx
  0116  59                             pop     rcx
  0117  58                             pop     rax
  0118  c3                             ret
slow0:
  0119  48 b9 00 00 00 00 00 7e 00 00  mov     rcx, 0x7e0000000000
  0123  48 8b 09                       mov     rcx, [rcx]
  0126  48 85 c9                       test    rcx, rcx
  0129  0f 84 2d ff ff ff              je      counted0
  012f  48 b9 00 00 80 00 00 7f 00 00  mov     rcx, 0x7f0000800000
  0139  f0 48 ff 84 c1 00 10 00 00     lock inc qword [rcx + rax * 8 + 0x1000]
  0142  e9 15 ff ff ff                 jmp     counted0
full1:
  0147  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0151  48 8b 00                       mov     rax, [rax]
  0154  48 85 c0                       test    rax, rax
  0157  74 b6                          je      recorded1
  0159  f0 48 ff 46 08                 lock inc qword [rsi + 8]
  015e  eb af                          jmp     recorded1
  0160  53 30 05 53                    dd 0x53053053
abort0:
  0164  e9 a9 fe ff ff                 jmp     restart0
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
  0188  22 00 00 00 10 7f 00 00        dq begin0
  0190  3a 00 00 00 00 00 00 00        dq 0x3a
  0198  64 01 00 00 10 7f 00 00        dq abort0
