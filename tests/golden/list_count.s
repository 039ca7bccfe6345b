  0000  48 8b 44 24 48                 mov     rax, [rsp + 0x48]
  0005  8b 40 f3                       mov     eax, [rax - 0xd]
restart0:
  0008  48 8d 0d 71 00 00 00           lea     rcx, [rel section0]
  000f  64 48 89 0c 25 28 09 00 00     mov     [fs:0x928], rcx
begin0:
  0018  64 48 63 0c 25 24 09 00 00     movsxd  rcx, [fs:0x924]
  0021  f3 0f c7 fa                    rdpid   rdx
  0025  81 e2 ff 0f 00 00              and     edx, 0xfff
  002b  39 ca                          cmp     edx, ecx
  002d  75 1c                          jne     slow0
  002f  48 ba 80 02 00 00 00 7e 00 00  mov     rdx, 0x7e0000000280
  0039  48 8b 0c ca                    mov     rcx, [rdx + rcx * 8]
  003d  48 85 c9                       test    rcx, rcx
  0040  74 09                          je      slow0
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
  0067  f0 48 ff 84 c1 00 10 00 00     lock inc qword [rcx + rax * 8 + 0x1000]
  0070  eb d8                          jmp     counted0
  0072  53 30 05 53                    dd 0x53053053
abort0:
  0076  eb 90                          jmp     restart0
  0078  cc                             int3
  0079  cc                             int3
  007a  cc                             int3
  007b  cc                             int3
  007c  cc                             int3
  007d  cc                             int3
  007e  cc                             int3
  007f  cc                             int3
section0:
  0080  00 00 00 00 00 00 00 00        dq 0x0
  0088  18 00 01 00 00 00 00 00        dq begin0
  0090  32 00 00 00 00 00 00 00        dq 0x32
  0098  76 00 01 00 00 00 00 00        dq abort0
