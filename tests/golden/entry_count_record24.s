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
  0012  48 8d 0d 47 01 00 00           lea     rcx, [rel section0]
  0019  64 48 89 0c 25 28 09 00 00     mov     [fs:0x928], rcx
begin0:
  0022  64 48 63 0c 25 24 09 00 00     movsxd  rcx, [fs:0x924]
  002b  48 ba 80 02 00 00 00 7e 00 00  mov     rdx, 0x7e0000000280
  0035  48 8b 0c ca                    mov     rcx, [rdx + rcx * 8]
  0039  48 85 c9                       test    rcx, rcx
  003c  0f 84 d1 00 00 00              je      slow0
  0042  48 8b 94 c1 00 10 00 00        mov     rdx, [rcx + rax * 8 + 0x1000]
  004a  48 8d 52 01                    lea     rdx, [rdx + 1]
  004e  48 89 94 c1 00 10 00 00        mov     [rcx + rax * 8 + 0x1000], rdx
end0:
counted0:
  0056  f3 0f c7 ff                    rdpid   rdi
  005a  81 e7 ff 0f 00 00              and     edi, 0xfff
  0060  48 c1 e7 06                    shl     rdi, 6
  0064  48 be 00 10 00 00 00 7f 00 00  mov     rsi, 0x7f0000001000
  006e  48 01 fe                       add     rsi, rdi
retry1:
  0071  48 8b 0e                       mov     rcx, [rsi]
  0074  0f 31                          rdtsc
  0076  48 c1 e2 20                    shl     rdx, 0x20
  007a  48 09 c2                       or      rdx, rax
  007d  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0087  48 8b 00                       mov     rax, [rax]
  008a  48 03 86 80 00 00 00           add     rax, [rsi + 0x80]
  0091  48 39 c1                       cmp     rcx, rax
  0094  0f 83 a2 00 00 00              jae     full1
  009a  48 89 c8                       mov     rax, rcx
  009d  48 8d 48 01                    lea     rcx, [rax + 1]
  00a1  f0 48 0f b1 0e                 lock cmpxchg [rsi], rcx
  00a6  75 c9                          jne     retry1
  00a8  48 69 ff 00 60 00 00           imul    rdi, 0x6000
  00af  89 c1                          mov     ecx, eax
  00b1  81 e1 ff ff 00 00              and     ecx, 0xffff
  00b7  48 8d 0c 49                    lea     rcx, [rcx + rcx * 2]
  00bb  48 c1 e1 03                    shl     rcx, 3
  00bf  48 01 f9                       add     rcx, rdi
  00c2  48 bf 00 20 00 00 00 7f 00 00  mov     rdi, 0x7f0000002000
  00cc  48 01 f9                       add     rcx, rdi
  00cf  48 89 11                       mov     [rcx], rdx
  00d2  48 c1 e8 10                    shr     rax, 0x10
  00d6  c1 e0 16                       shl     eax, 0x16
  00d9  f3 48 0f ae c2                 rdfsbase rdx
  00de  48 85 d2                       test    rdx, rdx
  00e1  74 0e                          je      no_tls1
  00e3  8b 92 d0 02 00 00              mov     edx, [rdx + 0x2d0]
  00e9  81 e2 ff ff 3f 00              and     edx, 0x3fffff
  00ef  09 d0                          or      eax, edx
no_tls1:
  00f1  48 c1 e0 20                    shl     rax, 0x20
  00f5  8b 74 24 30                    mov     esi, [rsp + 0x30]
  00f9  48 09 f0                       or      rax, rsi
  00fc  48 8b 74 24 38                 mov     rsi, [rsp + 0x38]
  0101  48 89 71 10                    mov     [rcx + 0x10], rsi
  0105  48 89 41 08                    mov     [rcx + 8], rax
recorded1:
  0109  58                             pop     rax
  010a  04 7f                          add     al, 0x7f
  010c  9e                             sahf
  010d  5f                             pop     rdi
  010e  5e                             pop     rsi
  010f  5a                             pop     rdx
  0110  59                             pop     rcx
  0111  58                             pop     rax
  0112  c3                             ret
slow0:
  0113  9c                             pushf
  0114  48 b9 00 00 00 00 00 7e 00 00  mov     rcx, 0x7e0000000000
  011e  48 8b 09                       mov     rcx, [rcx]
  0121  e3 13                          jrcxz   silent0
  0123  48 b9 00 00 80 00 00 7f 00 00  mov     rcx, 0x7f0000800000
  012d  f0 48 ff 84 c1 00 10 00 00     lock inc qword [rcx + rax * 8 + 0x1000]
silent0:
  0136  9d                             popf
  0137  e9 1a ff ff ff                 jmp     counted0
full1:
  013c  48 b8 00 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000000
  0146  48 8b 00                       mov     rax, [rax]
  0149  48 85 c0                       test    rax, rax
  014c  74 bb                          je      recorded1
  014e  f0 48 ff 46 08                 lock inc qword [rsi + 8]
  0153  eb b4                          jmp     recorded1
  0155  53 30 05 53                    dd 0x53053053
abort0:
  0159  e9 b4 fe ff ff                 jmp     restart0
  015e  cc                             int3
  015f  cc                             int3
section0:
  0160  00 00 00 00 00 00 00 00        dq 0x0
  0168  22 00 00 00 10 7f 00 00        dq begin0
  0170  34 00 00 00 00 00 00 00        dq 0x34
  0178  59 01 00 00 10 7f 00 00        dq abort0
