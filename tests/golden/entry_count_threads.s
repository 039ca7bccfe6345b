  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  9f                             lahf
  0004  0f 90 c0                       seto    al
  0007  50                             push    rax
  0008  64 8b 14 25 d0 02 00 00        mov     edx, [fs:0x2d0]
  0010  81 e2 ff ff 3f 00              and     edx, 0x3fffff
  0016  48 b9 00 10 e0 00 00 7f 00 00  mov     rcx, 0x7f0000e01000
  0020  0f b7 81 00 f0 ff ff           movzx   eax, word [rcx - 0x1000]
  0027  32 04 11                       xor     al, [rcx + rdx]
  002a  84 e0                          test    al, ah
  002c  74 4a                          je      counted0
restart0:
  002e  48 8d 0d 8b 00 00 00           lea     rcx, [rel section0]
  0035  64 48 89 0c 25 28 09 00 00     mov     [fs:0x928], rcx
begin0:
  003e  64 48 63 04 25 24 09 00 00     movsxd  rax, [fs:0x924]
  0047  f3 0f c7 f9                    rdpid   rcx
  004b  81 e1 ff 0f 00 00              and     ecx, 0xfff
  0051  39 c8                          cmp     eax, ecx
  0053  75 2b                          jne     slow0
  0055  48 b9 80 02 00 00 00 7e 00 00  mov     rcx, 0x7e0000000280
  005f  48 8b 0c c1                    mov     rcx, [rcx + rax * 8]
  0063  48 85 c9                       test    rcx, rcx
  0066  74 18                          je      slow0
  0068  48 8b 44 24 20                 mov     rax, [rsp + 0x20]
  006d  8b 40 f3                       mov     eax, [rax - 0xd]
  0070  48 ff 84 c1 00 10 00 00        inc     qword [rcx + rax * 8 + 0x1000]
end0:
counted0:
  0078  58                             pop     rax
  0079  04 7f                          add     al, 0x7f
  007b  9e                             sahf
  007c  5a                             pop     rdx
  007d  59                             pop     rcx
  007e  58                             pop     rax
  007f  c3                             ret
slow0:
  0080  48 b9 00 00 00 00 00 7e 00 00  mov     rcx, 0x7e0000000000
  008a  48 8b 09                       mov     rcx, [rcx]
  008d  48 85 c9                       test    rcx, rcx
  0090  74 e6                          je      counted0
  0092  48 b9 00 00 80 00 00 7f 00 00  mov     rcx, 0x7f0000800000
  009c  48 8b 44 24 20                 mov     rax, [rsp + 0x20]
  00a1  8b 40 f3                       mov     eax, [rax - 0xd]
  00a4  f0 48 ff 84 c1 00 10 00 00     lock inc qword [rcx + rax * 8 + 0x1000]
  00ad  eb c9                          jmp     counted0
  00af  53 30 05 53                    dd 0x53053053
abort0:
  00b3  e9 76 ff ff ff                 jmp     restart0
  00b8  cc                             int3
  00b9  cc                             int3
  00ba  cc                             int3
  00bb  cc                             int3
  00bc  cc                             int3
  00bd  cc                             int3
  00be  cc                             int3
  00bf  cc                             int3
section0:
  00c0  00 00 00 00 00 00 00 00        dq 0x0
  00c8  3e 00 00 00 10 7f 00 00        dq begin0
  00d0  3a 00 00 00 00 00 00 00        dq 0x3a
  00d8  b3 00 00 00 10 7f 00 00        dq abort0
