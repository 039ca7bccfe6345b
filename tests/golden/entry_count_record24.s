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
  0012  f3 48 0f ae c2                 rdfsbase rdx
  0017  48 89 d1                       mov     rcx, rdx
  001a  48 85 c9                       test    rcx, rcx
  001d  0f 84 fd 00 00 00              je      slow0
  0023  48 be 80 02 00 00 00 7e 00 00  mov     rsi, 0x7e0000000280
restart0:
  002d  48 8d 0d 4c 01 00 00           lea     rcx, [rel section0]
  0034  48 89 8a 28 09 00 00           mov     [rdx + 0x928], rcx
begin0:
  003b  48 63 8a 24 09 00 00           movsxd  rcx, [rdx + 0x924]
  0042  48 8b 0c ce                    mov     rcx, [rsi + rcx * 8]
  0046  48 85 c9                       test    rcx, rcx
  0049  0f 84 d1 00 00 00              je      slow0
  004f  48 8b bc c1 00 10 00 00        mov     rdi, [rcx + rax * 8 + 0x1000]
  0057  48 8d 7f 01                    lea     rdi, [rdi + 1]
  005b  48 89 bc c1 00 10 00 00        mov     [rcx + rax * 8 + 0x1000], rdi
end0:
counted0:
  0063  f3 0f c7 ff                    rdpid   rdi
  0067  81 e7 ff 0f 00 00              and     edi, 0xfff
  006d  48 c1 e7 06                    shl     rdi, 6
  0071  48 be 00 10 00 00 00 7f 00 00  mov     rsi, 0x7f0000001000
  007b  48 01 fe                       add     rsi, rdi
retry1:
  007e  48 8b 0e                       mov     rcx, [rsi]
  0081  0f 31                          rdtsc
  0083  48 c1 e2 20                    shl     rdx, 0x20
  0087  48 09 c2                       or      rdx, rax
  008a  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0094  48 8b 00                       mov     rax, [rax]
  0097  48 03 86 80 00 00 00           add     rax, [rsi + 0x80]
  009e  48 39 c1                       cmp     rcx, rax
  00a1  0f 83 a2 00 00 00              jae     full1
  00a7  48 89 c8                       mov     rax, rcx
  00aa  48 8d 48 01                    lea     rcx, [rax + 1]
  00ae  f0 48 0f b1 0e                 lock cmpxchg [rsi], rcx
  00b3  75 c9                          jne     retry1
  00b5  48 69 ff 00 60 00 00           imul    rdi, 0x6000
  00bc  89 c1                          mov     ecx, eax
  00be  81 e1 ff ff 00 00              and     ecx, 0xffff
  00c4  48 8d 0c 49                    lea     rcx, [rcx + rcx * 2]
  00c8  48 c1 e1 03                    shl     rcx, 3
  00cc  48 01 f9                       add     rcx, rdi
  00cf  48 bf 00 20 00 00 00 7f 00 00  mov     rdi, 0x7f0000002000
  00d9  48 01 f9                       add     rcx, rdi
  00dc  48 89 11                       mov     [rcx], rdx
  00df  48 c1 e8 10                    shr     rax, 0x10
  00e3  c1 e0 16                       shl     eax, 0x16
  00e6  f3 48 0f ae c2                 rdfsbase rdx
  00eb  48 85 d2                       test    rdx, rdx
  00ee  74 0e                          je      no_tls1
  00f0  8b 92 d0 02 00 00              mov     edx, [rdx + 0x2d0]
  00f6  81 e2 ff ff 3f 00              and     edx, 0x3fffff
  00fc  09 d0                          or      eax, edx
no_tls1:
  00fe  48 c1 e0 20                    shl     rax, 0x20
  0102  8b 74 24 30                    mov     esi, [rsp + 0x30]
  0106  48 09 f0                       or      rax, rsi
  0109  48 8b 74 24 38                 mov     rsi, [rsp + 0x38]
  010e  48 89 71 10                    mov     [rcx + 0x10], rsi
  0112  48 89 41 08                    mov     [rcx + 8], rax
recorded1:
  0116  58                             pop     rax
  0117  04 7f                          add     al, 0x7f
  0119  9e                             sahf
  011a  5f                             pop     rdi
  011b  5e                             pop     rsi
  011c  5a                             pop     rdx
  011d  59                             pop     rcx
  011e  58                             pop     rax
  011f  c3                             ret
slow0:
  0120  9c                             pushf
  0121  48 b9 00 00 00 00 00 7e 00 00  mov     rcx, 0x7e0000000000
  012b  48 8b 09                       mov     rcx, [rcx]
  012e  e3 13                          jrcxz   silent0
  0130  48 b9 00 00 80 00 00 7f 00 00  mov     rcx, 0x7f0000800000
  013a  f0 48 ff 84 c1 00 10 00 00     lock inc qword [rcx + rax * 8 + 0x1000]
silent0:
  0143  9d                             popf
  0144  e9 1a ff ff ff                 jmp     counted0
full1:
  0149  48 b8 00 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000000
  0153  48 8b 00                       mov     rax, [rax]
  0156  48 85 c0                       test    rax, rax
  0159  74 bb                          je      recorded1
  015b  f0 48 ff 46 08                 lock inc qword [rsi + 8]
  0160  eb b4                          jmp     recorded1
  0162  53 30 05 53                    dd 0x53053053
abort0:
  0166  e9 c2 fe ff ff                 jmp     restart0
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
  0188  3b 00 00 00 10 7f 00 00        dq begin0
  0190  28 00 00 00 00 00 00 00        dq 0x28
  0198  66 01 00 00 10 7f 00 00        dq abort0
