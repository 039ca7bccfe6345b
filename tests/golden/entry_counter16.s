  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  9f                             lahf
  0004  0f 90 c0                       seto    al
  0007  50                             push    rax
restart0:
  0008  48 8d 0d 31 01 00 00           lea     rcx, [rel section0]
  000f  64 48 89 0c 25 28 09 00 00     mov     [fs:0x928], rcx
begin0:
  0018  64 8b 0c 25 24 09 00 00        mov     ecx, [fs:0x924]
  0020  f3 0f c7 f8                    rdpid   rax
  0024  25 ff 0f 00 00                 and     eax, 0xfff
  0029  39 c8                          cmp     eax, ecx
  002b  75 66                          jne     stray0
  002d  48 69 c9 00 00 10 00           imul    rcx, 0x100000
  0034  48 03 0d e5 00 00 00           add     rcx, [rel lines0]
  003b  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0045  48 8b 00                       mov     rax, [rax]
  0048  48 03 81 80 00 00 00           add     rax, [rcx + 0x80]
  004f  48 3b 01                       cmp     rax, [rcx]
  0052  0f 86 a2 00 00 00              jbe     full0
  0058  ba 01 00 00 00                 mov     edx, 1
  005d  48 0f c1 11                    xadd    [rcx], rdx
end0:
  0061  48 8d 04 12                    lea     rax, [rdx + rdx]
  0065  25 fe ff 01 00                 and     eax, 0x1fffe
  006a  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  0072  48 c1 ea 10                    shr     rdx, 0x10
  0076  8b 44 24 20                    mov     eax, [rsp + 0x20]
  007a  89 41 08                       mov     [rcx + 8], eax
  007d  c1 e2 16                       shl     edx, 0x16
  0080  64 0b 14 25 d0 02 00 00        or      edx, [fs:0x2d0]
  0088  89 51 0c                       mov     [rcx + 0xc], edx
recorded0:
  008b  58                             pop     rax
  008c  04 7f                          add     al, 0x7f
  008e  9e                             sahf
  008f  5a                             pop     rdx
  0090  59                             pop     rcx
  0091  58                             pop     rax
  0092  c3                             ret
stray0:
  0093  48 b9 00 10 20 00 00 7f 00 00  mov     rcx, 0x7f0000201000
retry0:
  009d  48 8b 01                       mov     rax, [rcx]
  00a0  48 ba 40 00 00 00 00 7e 00 00  mov     rdx, 0x7e0000000040
  00aa  48 8b 12                       mov     rdx, [rdx]
  00ad  48 03 91 80 00 00 00           add     rdx, [rcx + 0x80]
  00b4  48 39 d0                       cmp     rax, rdx
  00b7  73 41                          jae     full0
  00b9  48 8d 50 01                    lea     rdx, [rax + 1]
  00bd  f0 48 0f b1 11                 lock cmpxchg [rcx], rdx
  00c2  75 d9                          jne     retry0
  00c4  48 89 c2                       mov     rdx, rax
  00c7  48 8d 04 12                    lea     rax, [rdx + rdx]
  00cb  25 fe ff 01 00                 and     eax, 0x1fffe
  00d0  48 8d 8c c1 00 01 00 00        lea     rcx, [rcx + rax * 8 + 0x100]
  00d8  48 c1 ea 10                    shr     rdx, 0x10
  00dc  8b 44 24 20                    mov     eax, [rsp + 0x20]
  00e0  89 41 08                       mov     [rcx + 8], eax
  00e3  c1 e2 16                       shl     edx, 0x16
  00e6  64 8b 04 25 d0 02 00 00        mov     eax, [fs:0x2d0]
  00ee  25 ff ff 3f 00                 and     eax, 0x3fffff
  00f3  09 c2                          or      edx, eax
stray_no_tls0:
  00f5  89 51 0c                       mov     [rcx + 0xc], edx
  00f8  eb 91                          jmp     recorded0
full0:
  00fa  48 b8 40 00 00 00 00 7e 00 00  mov     rax, 0x7e0000000040
  0104  48 8b 00                       mov     rax, [rax]
  0107  48 85 c0                       test    rax, rax
  010a  0f 84 7b ff ff ff              je      recorded0
  0110  f0 48 ff 41 08                 lock inc qword [rcx + 8]
  0115  e9 71 ff ff ff                 jmp     recorded0
  011a  cc                             int3
  011b  cc                             int3
  011c  cc                             int3
  011d  cc                             int3
  011e  cc                             int3
  011f  cc                             int3
lines0:
  0120  00 10 00 00 00 7f 00 00        dq 0x7f0000001000
  0128  53 30 05 53                    dd 0x53053053
abort0:
  012c  e9 d7 fe ff ff                 jmp     restart0
  0131  cc                             int3
  0132  cc                             int3
  0133  cc                             int3
  0134  cc                             int3
  0135  cc                             int3
  0136  cc                             int3
  0137  cc                             int3
  0138  cc                             int3
  0139  cc                             int3
  013a  cc                             int3
  013b  cc                             int3
  013c  cc                             int3
  013d  cc                             int3
  013e  cc                             int3
  013f  cc                             int3
section0:
  0140  00 00 00 00 00 00 00 00        dq 0x0
  0148  18 00 00 00 10 7f 00 00        dq begin0
  0150  49 00 00 00 00 00 00 00        dq 0x49
  0158  2c 01 00 00 10 7f 00 00        dq abort0
