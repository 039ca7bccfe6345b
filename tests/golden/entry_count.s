  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  56                             push    rsi
  0004  57                             push    rdi
  0005  48 8b 44 24 28                 mov     rax, [rsp + 0x28]
  000a  8b 40 f3                       mov     eax, [rax - 0xd]
  000d  f3 48 0f ae c2                 rdfsbase rdx
  0012  48 89 d1                       mov     rcx, rdx
  0015  e3 3f                          jrcxz   slow0
  0017  48 be 80 02 00 00 00 7e 00 00  mov     rsi, 0x7e0000000280
restart0:
  0021  48 8d 0d 78 00 00 00           lea     rcx, [rel section0]
  0028  48 89 8a 28 09 00 00           mov     [rdx + 0x928], rcx
begin0:
  002f  48 63 8a 24 09 00 00           movsxd  rcx, [rdx + 0x924]
  0036  48 8b 0c ce                    mov     rcx, [rsi + rcx * 8]
  003a  e3 1a                          jrcxz   slow0
  003c  48 8b bc c1 00 10 00 00        mov     rdi, [rcx + rax * 8 + 0x1000]
  0044  48 8d 7f 01                    lea     rdi, [rdi + 1]
  0048  48 89 bc c1 00 10 00 00        mov     [rcx + rax * 8 + 0x1000], rdi
end0:
counted0:
  0050  5f                             pop     rdi
  0051  5e                             pop     rsi
  0052  5a                             pop     rdx
  0053  59                             pop     rcx
  0054  58                             pop     rax
  0055  c3                             ret
slow0:
  0056  9c                             pushf
  0057  48 b9 00 00 00 00 00 7e 00 00  mov     rcx, 0x7e0000000000
  0061  48 8b 09                       mov     rcx, [rcx]
  0064  e3 13                          jrcxz   silent0
  0066  48 b9 00 00 80 00 00 7f 00 00  mov     rcx, 0x7f0000800000
  0070  f0 48 ff 84 c1 00 10 00 00     lock inc qword [rcx + rax * 8 + 0x1000]
silent0:
  0079  9d                             popf
  007a  eb d4                          jmp     counted0
  007c  53 30 05 53                    dd 0x53053053
abort0:
  0080  eb 9f                          jmp     restart0
  0082  cc                             int3
  0083  cc                             int3
  0084  cc                             int3
  0085  cc                             int3
  0086  cc                             int3
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
  00a8  2f 00 00 00 10 7f 00 00        dq begin0
  00b0  21 00 00 00 00 00 00 00        dq 0x21
  00b8  80 00 00 00 10 7f 00 00        dq abort0
