  0000  50                             push    rax
  0001  51                             push    rcx
  0002  52                             push    rdx
  0003  56                             push    rsi
  0004  57                             push    rdi
  0005  41 50                          push    r8
  0007  41 51                          push    r9
  0009  9f                             lahf
  000a  0f 90 c0                       seto    al
  000d  50                             push    rax
  000e  48 8b 44 24 40                 mov     rax, [rsp + 0x40]
  0013  44 8b 48 f3                    mov     r9d, [rax - 0xd]
  0017  4c 8b 05 32 00 00 00           mov     r8, [rel cell]
next:
  001e  49 8b 08                       mov     rcx, [r8]
  0021  48 85 c9                       test    rcx, rcx
  0024  74 1b                          je      end_of_table
  0026  49 8b 40 08                    mov     rax, [r8 + 8]
  002a  44 89 ca                       mov     edx, r9d
  002d  c1 ea 05                       shr     edx, 5
  0030  8b 14 90                       mov     edx, [rax + rdx * 4]
  0033  44 0f a3 ca                    bt      edx, r9d
  0037  73 02                          jae     unwanted
  0039  ff d1                          call    rcx
unwanted:
  003b  49 83 c0 20                    add     r8, 0x20
  003f  eb dd                          jmp     next
end_of_table:
  0041  58                             pop     rax
  0042  04 7f                          add     al, 0x7f
  0044  9e                             sahf
  0045  41 59                          pop     r9
  0047  41 58                          pop     r8
  0049  5f                             pop     rdi
  004a  5e                             pop     rsi
  004b  5a                             pop     rdx
  004c  59                             pop     rcx
  004d  58                             pop     rax
  004e  c3                             ret
  004f  cc                             int3
cell:
  0050  00 00 00 00 00 00 00 00        dq 0x0
