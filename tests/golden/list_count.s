restart0:
  0000  48 8d 0d 79 00 00 00           lea     rcx, [rel section0]
  0007  64 48 89 0c 25 28 09 00 00     mov     [fs:0x928], rcx
begin0:
  0010  64 48 63 04 25 24 09 00 00     movsxd  rax, [fs:0x924]
  0019  f3 0f c7 f9                    rdpid   rcx
  001d  81 e1 ff 0f 00 00              and     ecx, 0xfff
  0023  39 c8                          cmp     eax, ecx
  0025  75 24                          jne     slow0
  0027  48 b9 80 02 00 00 00 7e 00 00  mov     rcx, 0x7e0000000280
  0031  48 8b 0c c1                    mov     rcx, [rcx + rax * 8]
  0035  48 85 c9                       test    rcx, rcx
  0038  74 11                          je      slow0
  003a  48 8b 44 24 48                 mov     rax, [rsp + 0x48]
  003f  8b 40 f3                       mov     eax, [rax - 0xd]
  0042  48 ff 84 c1 00 10 00 00        inc     qword [rcx + rax * 8 + 0x1000]
end0:
counted0:
  004a  c3                             ret
slow0:
  004b  48 b9 00 00 00 00 00 7e 00 00  mov     rcx, 0x7e0000000000
  0055  48 8b 09                       mov     rcx, [rcx]
  0058  48 85 c9                       test    rcx, rcx
  005b  74 ed                          je      counted0
  005d  48 b9 00 00 80 00 00 7f 00 00  mov     rcx, 0x7f0000800000
  0067  48 8b 44 24 48                 mov     rax, [rsp + 0x48]
  006c  8b 40 f3                       mov     eax, [rax - 0xd]
  006f  f0 48 ff 84 c1 00 10 00 00     lock inc qword [rcx + rax * 8 + 0x1000]
  0078  eb d0                          jmp     counted0
  007a  53 30 05 53                    dd 0x53053053
abort0:
  007e  eb 80                          jmp     restart0
section0:
  0080  00 00 00 00 00 00 00 00        dq 0x0
  0088  10 00 01 00 00 00 00 00        dq begin0
  0090  3a 00 00 00 00 00 00 00        dq 0x3a
  0098  7e 00 01 00 00 00 00 00        dq abort0
