  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  9f                             lahf
  0004  0f 90 c0                       seto    al
  0007  50                             push    rax
  0008  48 8b 44 24 20                 mov     rax, [rsp + 0x20]
  000d  8b 40 f3                       mov     eax, [rax - 0xd]
restart0:
  0010  48 8d 0d 89 00 00 00           lea     rcx, [rel section0]
  0017  64 48 89 0c 25 28 09 00 00     mov     [fs:0x928], rcx
begin0:
  0020  64 48 63 0c 25 24 09 00 00     movsxd  rcx, [fs:0x924]
  0029  f3 0f c7 fa                    rdpid   rdx
  002d  81 e2 ff 0f 00 00              and     edx, 0xfff
  0033  39 ca                          cmp     edx, ecx
  0035  75 23                          jne     slow0
  0037  48 ba 80 02 00 00 00 7e 00 00  mov     rdx, 0x7e0000000280
  0041  48 8b 0c ca                    mov     rcx, [rdx + rcx * 8]
  0045  48 85 c9                       test    rcx, rcx
  0048  74 10                          je      slow0
  004a  48 ff 84 c1 00 10 00 00        inc     qword [rcx + rax * 8 + 0x1000]
end0:
counted0:
  0052  58                             pop     rax
  0053  04 7f                          add     al, 0x7f
  0055  9e                             sahf
  0056  5a                             pop     rdx
  0057  59                             pop     rcx
  0058  58                             pop     rax
  0059  c3                             ret
slow0:
  005a  48 b9 00 00 00 00 00 7e 00 00  mov     rcx, 0x7e0000000000
  0064  48 8b 09                       mov     rcx, [rcx]
  0067  48 85 c9                       test    rcx, rcx
  006a  74 e6                          je      counted0
  006c  48 b9 00 00 80 00 00 7f 00 00  mov     rcx, 0x7f0000800000
  0076  f0 48 ff 84 c1 00 10 00 00     lock inc qword [rcx + rax * 8 + 0x1000]
  007f  eb d1                          jmp     counted0
  0081  53 30 05 53                    dd 0x53053053
abort0:
  0085  eb 89                          jmp     restart0
  0087  cc                             int3
  0088  cc                             int3
  0089  cc                             int3
  008a  cc                             int3
  008b  cc                             int3
  008c  cc                             int3
  008d  cc                             int3
  008e  cc                             int3
  008f  cc                             int3
  0090  cc                             int3
  0091  cc                             int3
  0092  cc                             int3
  0093  cc                             int3
  0094  cc                             int3
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
  00a8  20 00 00 00 10 7f 00 00        dq begin0
  00b0  32 00 00 00 00 00 00 00        dq 0x32
  00b8  85 00 00 00 10 7f 00 00        dq abort0
