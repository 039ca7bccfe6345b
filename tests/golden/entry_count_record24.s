  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  56                             push    rsi
  0004  9f                             lahf
  0005  0f 90 c0                       seto    al
  0008  50                             push    rax
restart0:
  0009  48 8d 0d 50 01 00 00           lea     rcx, [rel section0]
  0010  64 48 89 0c 25 28 09 00 00     mov     [fs:0x928], rcx
begin0:
  0019  64 48 63 04 25 24 09 00 00     movsxd  rax, [fs:0x924]
  0022  f3 0f c7 f9                    rdpid   rcx
  0026  81 e1 ff 0f 00 00              and     ecx, 0xfff
  002c  39 c8                          cmp     eax, ecx
  002e  0f 85 d0 00 00 00              jne     slow0
  0034  48 b9 80 02 00 00 00 7e 00 00  mov     rcx, 0x7e0000000280
  003e  48 8b 0c c1                    mov     rcx, [rcx + rax * 8]
  0042  48 85 c9                       test    rcx, rcx
  0045  0f 84 b9 00 00 00              je      slow0
  004b  48 8b 44 24 28                 mov     rax, [rsp + 0x28]
  0050  8b 40 f3                       mov     eax, [rax - 0xd]
  0053  48 ff 84 c1 00 10 00 00        inc     qword [rcx + rax * 8 + 0x1000]
end0:
counted0:
  005b  f3 0f c7 f9                    rdpid   rcx
  005f  81 e1 ff 0f 00 00              and     ecx, 0xfff
  0065  48 be 00 10 00 00 00 7f 00 00  mov     rsi, 0x7f0000001000
  006f  48 69 c9 00 00 18 00           imul    rcx, 0x180000
  0076  48 01 ce                       add     rsi, rcx
retry1:
  0079  48 8b 0e                       mov     rcx, [rsi]
  007c  0f 31                          rdtsc
  007e  48 c1 e2 20                    shl     rdx, 0x20
  0082  48 09 c2                       or      rdx, rax
  0085  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  008f  48 8b 00                       mov     rax, [rax]
  0092  48 03 86 80 00 00 00           add     rax, [rsi + 0x80]
  0099  48 39 c1                       cmp     rcx, rax
  009c  0f 83 98 00 00 00              jae     full1
  00a2  48 89 c8                       mov     rax, rcx
  00a5  48 8d 48 01                    lea     rcx, [rax + 1]
  00a9  f0 48 0f b1 0e                 lock cmpxchg [rsi], rcx
  00ae  75 c9                          jne     retry1
  00b0  89 c1                          mov     ecx, eax
  00b2  81 e1 ff ff 00 00              and     ecx, 0xffff
  00b8  48 8d 0c 49                    lea     rcx, [rcx + rcx * 2]
  00bc  48 89 94 ce 00 01 00 00        mov     [rsi + rcx * 8 + 0x100], rdx
  00c4  48 c1 e8 10                    shr     rax, 0x10
  00c8  48 8b 54 24 30                 mov     rdx, [rsp + 0x30]
  00cd  48 89 94 ce 10 01 00 00        mov     [rsi + rcx * 8 + 0x110], rdx
  00d5  c1 e0 16                       shl     eax, 0x16
  00d8  64 8b 14 25 d0 02 00 00        mov     edx, [fs:0x2d0]
  00e0  81 e2 ff ff 3f 00              and     edx, 0x3fffff
  00e6  09 d0                          or      eax, edx
no_tls1:
  00e8  8b 54 24 28                    mov     edx, [rsp + 0x28]
  00ec  48 c1 e0 20                    shl     rax, 0x20
  00f0  48 09 d0                       or      rax, rdx
  00f3  48 89 84 ce 08 01 00 00        mov     [rsi + rcx * 8 + 0x108], rax
recorded1:
  00fb  58                             pop     rax
  00fc  04 7f                          add     al, 0x7f
  00fe  9e                             sahf
  00ff  5e                             pop     rsi
  0100  5a                             pop     rdx
  0101  59                             pop     rcx
  0102  58                             pop     rax
  0103  c3                             ret
slow0:
  0104  48 b9 00 00 00 00 00 7e 00 00  mov     rcx, 0x7e0000000000
  010e  48 8b 09                       mov     rcx, [rcx]
  0111  48 85 c9                       test    rcx, rcx
  0114  0f 84 41 ff ff ff              je      counted0
  011a  48 b9 00 00 80 00 00 7f 00 00  mov     rcx, 0x7f0000800000
  0124  48 8b 44 24 28                 mov     rax, [rsp + 0x28]
  0129  8b 40 f3                       mov     eax, [rax - 0xd]
  012c  f0 48 ff 84 c1 00 10 00 00     lock inc qword [rcx + rax * 8 + 0x1000]
  0135  e9 21 ff ff ff                 jmp     counted0
full1:
  013a  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0144  48 8b 00                       mov     rax, [rax]
  0147  48 85 c0                       test    rax, rax
  014a  74 af                          je      recorded1
  014c  f0 48 ff 46 08                 lock inc qword [rsi + 8]
  0151  eb a8                          jmp     recorded1
  0153  53 30 05 53                    dd 0x53053053
abort0:
  0157  e9 ad fe ff ff                 jmp     restart0
  015c  cc                             int3
  015d  cc                             int3
  015e  cc                             int3
  015f  cc                             int3
section0:
  0160  00 00 00 00 00 00 00 00        dq 0x0
  0168  19 00 00 00 10 7f 00 00        dq begin0
  0170  42 00 00 00 00 00 00 00        dq 0x42
  0178  57 01 00 00 10 7f 00 00        dq abort0
