  0000  50                             push    rax
  0001  51                             push    rcx
  0002  9f                             lahf
  0003  0f 90 c0                       seto    al
  0006  50                             push    rax
restart0:
  0007  48 8d 0d 92 00 00 00           lea     rcx, [rel section0]
  000e  64 48 89 0c 25 28 09 00 00     mov     [fs:0x928], rcx
begin0:
  0017  64 48 63 04 25 24 09 00 00     movsxd  rax, [fs:0x924]
  0020  f3 0f c7 f9                    rdpid   rcx
  0024  81 e1 ff 0f 00 00              and     ecx, 0xfff
  002a  39 c8                          cmp     eax, ecx
  002c  75 2f                          jne     slow0
  002e  48 b9 80 02 00 00 00 7e 00 00  mov     rcx, 0x7e0000000280
  0038  48 8b 0c c1                    mov     rcx, [rcx + rax * 8]
  003c  48 85 c9                       test    rcx, rcx
  003f  74 1c                          je      slow0
  0041  48 8b 44 24 18                 mov     rax, [rsp + 0x18]
  0046  8b 40 f3                       mov     eax, [rax - 0xd]
  0049  48 ff 84 c1 00 10 00 00        inc     qword [rcx + rax * 8 + 0x1000]
end0:
counted0:
  0051  58                             pop     rax
  0052  04 7f                          add     al, 0x7f
  0054  9e                             sahf
  0055  59                             pop     rcx
  0056  58                             pop     rax
  0057  ff 25 63 00 00 00              jmp     qword [rel direct]
slow0:
  005d  48 b9 00 00 00 00 00 7e 00 00  mov     rcx, 0x7e0000000000
  0067  48 8b 09                       mov     rcx, [rcx]
  006a  48 85 c9                       test    rcx, rcx
  006d  74 e2                          je      counted0
  006f  48 b9 00 00 80 00 00 7f 00 00  mov     rcx, 0x7f0000800000
  0079  48 8b 44 24 18                 mov     rax, [rsp + 0x18]
  007e  8b 40 f3                       mov     eax, [rax - 0xd]
  0081  f0 48 ff 84 c1 00 10 00 00     lock inc qword [rcx + rax * 8 + 0x1000]
  008a  eb c5                          jmp     counted0
  008c  53 30 05 53                    dd 0x53053053
abort0:
  0090  e9 72 ff ff ff                 jmp     restart0
  0095  cc                             int3
  0096  cc                             int3
  0097  cc                             int3
  0098  cc                             int3
  0099  cc                             int3
  009a  cc                             int3
  009b  cc                             int3
  009c  cc                             int3
  009d  cc                             int3
  009e  cc                             int3
  009f  cc                             int3
section0:
  00a0  00 00 00 00 00 00 00 00        dq 0x0
  00a8  17 00 00 00 10 7f 00 00        dq begin0
  00b0  3a 00 00 00 00 00 00 00        dq 0x3a
  00b8  90 00 00 00 10 7f 00 00        dq abort0
direct:
  00c0  40 00 00 00 20 7f 00 00        dq 0x7f2000000040
