r"""Patterns of C functions: what compilers are given in real programs, each shape once.

One list, and so one file.

A pattern is C text and, behind `=>`, the call of its function for a number x, as a u64.
c_programs.py fills in, differently each time:

    @F @G @H   names of the functions that it defines; @F is the one that `=>` calls
    LINK       static, extern, weak, aligned or in a section, never inlined
    @k @d      a number, a floating one       @m @s @b   one of 2..9, of 1..31, of 40..20000
    @e         an expression of x             @c         the same, with a call of another function
    @1 @2 @3   functions u64 (u64), the same one wherever the number is
    @w @v      cases of a switch: that return, that set x
"""

from __future__ import annotations

LEAVES = r"""
LINK u64 @F(u64 x) { return @e; }
=> @F(x)

LINK u64 @F(u64 x) { return @e; }
=> @F(x)

LINK u64 @F(u64 x, u64 y) { return (@e) + y * @k; }
=> @F(x, x >> @s)

LINK u32 @F(u32 a, unsigned short b, signed char c, u8 d) { return (a * b ^ c) + (d >> 1) + @m; }
=> @F(x, x >> 7, x >> 3, x >> @s)

LINK _Bool @F(u64 x) { return x % @m == 1; }
=> @F(x)

LINK signed char @F(int a, int b) { return a < b ? -1 : a > b; }
=> (u64)@F(x & 7, x >> 3 & 7)

LINK unsigned short @F(u8 a) { return a + @m; }
=> @F(x)

ALONE u64 @F(void) { STAYS; return @k; }
=> @F() + x

ALONE int @F(void) { STAYS; return 0; }
=> @F() + x

ALONE double @F(void) { STAYS; return @d; }
=> bits(@F()) + x

ALONE void @F(void) { STAYS; }
=> (@F(), x)

ALONE void @F(u64 *p) { *p = @k; }
=> (@F(cells + 3), cells[3] + x)

LINK u64 @F(void) { return cells[1] * @k; }
=> (cells[1] = x, @F())

LINK u64 @F(u64 x) { return popcount(x) + (x ? __builtin_ctzll(x) : @m) + __builtin_bswap64(x); }
=> @F(x)

LINK u64 @F(const u64 *p) { if (!p) return @k; return *p * @m; }
=> @F(x % 3 ? words + x % 8 : 0)

LINK u64 @F(const u64 *p) { if (!p) return @k; u64 x = *p; return @c; }
=> @F(x % 3 ? words + x % 8 : 0)

LINK struct node *@F(struct node *p) { if (!p || !p->next) return p; return p->next->next; }
=> (u64)(@F(nodes + x % 4) - nodes)

static u64 @Ft[16] = {@k, @k, @k, @k, @k, @k};
LINK u64 @F(u64 x) { return @Ft[x & 15] + @m; }
=> @F(x)

static const u8 @Ft[] = "some letters in a row";
LINK u64 @F(u64 x) { return @Ft[x % sizeof @Ft] ^ @Ft[x / 32 % sizeof @Ft]; }
=> @F(x)

static u64 @Fs;
LINK u64 @F(u64 x) { u64 old = @Fs; @Fs = x * @m; return old + @Fs; }
=> (@Fs = x + @k, @F(x))

static volatile u8 @Fz;
LINK u64 @F(u64 x) { if (@Fz) return x; return @e; }
=> (@Fz = x % 2, @F(x))

static __thread u64 @Ft;
LINK u64 @F(u64 x) { u64 *p = &@Ft; *p = x; OPAQUE(p); return *p + @m; }
=> @F(x)

static __thread u64 @Ft;
LINK u64 @F(void) { return @Ft++ * @m; }
=> (@Ft = x, @F())

LINK u64 @F(u64 x) { return (u64)__builtin_return_address(0) * x; }
=> @F(x)

LINK u64 @F(u64 x) { u64 *frame = __builtin_frame_address(0); return frame[1] + x; }
=> @F(x)

LINK u64 @F(u64 x) { if (x > 200) return 1; if (x & 4) return x * @m; if (x & 8) return @k;
    return x & 16 ? @e : x + @m; }
=> @F(x)

LINK u64 @F(u64 x) { union { u64 all; struct { u32 a : 3, b : 13, c : 16; u32 d; } part; } u;
    u.all = x; u.part.b += @m; u.part.d ^= u.part.a; return u.all; }
=> @F(x)

LINK u64 @F(u64 x) { unsigned __int128 wide = (unsigned __int128)x * @k; return wide >> 64 ^ wide; }
=> @F(x)

LINK unsigned __int128 @F(unsigned __int128 a, u64 b) { return a / (b | 1) + a % (b + @m); }
=> @F((unsigned __int128)x << 40 | @m, x >> 20) >> 3

LINK u64 @F(u64 x) @{return (x >> @s) * @k + (x ^ @k);@}
LINK u64 @G(u64 x) @{return (x >> @s) * @k + (x ^ @k);@}
LINK u64 @H(u64 x) @{return (x >> @s) * @k + (x ^ @k);@}
=> @F(x) ^ (CALLED(@G), @G(x + 1)) ^ (CALLED(@H), @H(x + 2))

LINK u64 @F(struct node *p, u64 v) @{p->value = v; return p->next ? p->next->value : @k;@}
LINK u64 @G(struct node *p, u64 v) @{p->value = v; return p->next ? p->next->value : @k;@}
=> @F(nodes + 4, x) ^ (CALLED(@G), @G(nodes + 5, x))

KEEP u64 @F(u64 x) { return @e; }
u64 @G(u64 x) __attribute__((alias("@F")));
=> @F(x) ^ (CALLED(@G), @G(x + 1))
"""

FLOW = r"""
LINK u64 @F(u64 x) { switch (x % @m) { @w } return @k; }
=> @F(x)

LINK u64 @F(u32 way, u64 x) { switch (way) { @w } return @e; }
=> @F(x % 16, x)

LINK u64 @F(u32 way, u64 x) { switch (way) { @w default: __builtin_unreachable(); } }
=> @F(x % 5, x)

LINK u64 @F(u64 x) { switch (x & 15) { @v } return @e; }
=> @F(x)

LINK u64 @F(u64 x) { for (int i = 0; i < @m; i++) switch (x & 7) { @v default: x += @m; } return x;
    }
=> @F(x)

LINK int @F(u8 letter) { switch (letter) { case 'a': return 3; case 'b': return 9;
    case 'c': return 27;
    case 'd': return 5; case 'e': return -1; case 'f': return 11; case 'x': return 8; } return 0; }
=> (u64)@F('a' + x % 8)

LINK void @F(struct node *p, u32 way) { switch (way) { case 0: p->value = 1; break; case 1: case 2:
    p->value *= @m; case 3: p->value ^= @k; break; case 4: p->next = nodes; break; case 5: return;
    case 6: p->value = popcount(p->value); break; default: p->value = 0; } }
=> (nodes[6].value = x, @F(nodes + 6, x % 9), nodes[6].value)

LINK u64 @F(u64 x) { static const void *const go[] = {&&one, &&two, &&three, &&four};
    u64 sum = @k; int left = @m; goto *go[x & 3];
one: sum += x; x >>= 2; if (!left--) return sum; goto *go[x & 3];
two: sum ^= x * @m; x >>= 1; if (!left--) return sum; goto *go[x & 3];
three: sum -= @k; x = x >> 3 ^ sum; if (!left--) return sum; goto *go[x & 3];
four: return sum * @m; }
=> @F(x)

LINK u64 @F(u64 x) { static const int go[] = {&&one - &&one, &&two - &&one, &&three - &&one};
    u64 sum = @e; for (int left = @m; left; left--) { goto *(&&one + go[x % 3]);
one: sum += x; x = x / 3; continue;
two: sum = (sum << 1) + @m; x = x / 2 * 3; continue;
three: return sum; } return sum ^ @k; }
=> @F(x)

LINK u64 @F(u64 x) { static const int go[] = {&&one - &&one, &&two - &&one}; u64 sum = 0;
one: sum += x | 1; x >>= @m; goto *(&&one + go[!x]);
two: return sum; }
=> @F(x)

LINK u64 @F(u64 n, u64 x) { do x = @e; while (--n); return x; }
=> @F(x % 6 + 1, x)

LINK u64 @F(u64 n, u64 x) { while (n--) x = @c; return x; }
=> @F(x % 4, x)

LINK u64 @F(u64 x) { for (;;) { x += 3; if (x % 7 == 3) return x; } }
=> @F(x)

LINK u64 @F(const char *s) { const char *t = s; while (*t) t++; return t - s; }
=> @F("many letters in a row" + x % 16)

LINK u64 @F(const struct node *p) { u64 sum = @k; for (; p; p = p->next) sum = sum * 31 + p->value;
    return sum; }
=> @F(nodes + x % 4)

LINK const struct node *@F(const struct node *p, u64 v) { while (p && p->value != v) p = p->next;
    return p; }
=> @F(nodes + x % 4, 3) != 0

LINK void @F(u64 *p, u64 n) { for (u64 i = 0; i < n; i++) p[i] = p[i] * @m + i; }
=> (cells[9] = x, @F(cells + 8, 8), cells[9])

LINK u32 @F(const u32 *p, int n) { u32 sum = 0; for (int i = 0; i < n; i++) sum += p[i];
    return sum; }
=> @F((const u32 *)words + 24, x % 9)

LINK double @F(const double *p, int n) { double sum = 0; for (int i = 0; i < n;
    i++) sum += p[i] * p[i];
    return sum; }
=> bits(@F(doubles, x % 12))

LINK u64 @F(u64 x) { u64 grid[4][4]; for (int i = 0; i < 16; i++) grid[i / 4][i % 4] = x + i * @m;
    u64 sum = 0; for (int i = 0; i < 4; i++) for (int j = 0; j < 4;
    j++) sum += grid[i][j] * grid[j][i];
    return sum; }
=> @F(x)

LINK u64 @F(u64 a, u64 b) { while (b) { u64 t = a % b; a = b; b = t; } return a; }
=> @F(x & 0xffff, x >> 16 & 0xff)

LINK u64 @F(u64 n, u64 a) { return n ? @F(n - 1, a * @m + n) : a; }
=> (AGAIN(@F, x % 8), @F(x % 8, x))

LINK void @F(struct node *p, u64 n) { if (!n) return; p->value += n; @F(p, n - 1); }
=> (nodes[7].value = 0, AGAIN(@F, x % 5), @F(nodes + 7, x % 5), nodes[7].value)

LINK u64 @F(u64 n) { return n ? n + @F(n - 1) : @k; }
=> (AGAIN(@F, x % 6), @F(x % 6))

LINK u64 @F(u64 n) { if (n < 2) return n + @k; CALLED(@F); u64 r = @F(n - 1); OPAQUE(r);
    return r * @m + n; }
=> @F(x % 6)

LINK u64 @F(u64 n) { if (n < 2) return n + @m; CALLED(@F); u64 a = @F(n - 1); OPAQUE(a);
    CALLED(@F); u64 b = @F(n - 2); OPAQUE(b); return a + b; }
=> @F(x % 5)

static u64 @G(u64 n, u64 x);
LINK u64 @F(u64 n, u64 x) { if (!n) return x; CALLED(@G); return @G(n - 1, x * @m); }
static KEEP u64 @G(u64 n, u64 x) { if (!n) return @k; CALLED(@F); return @F(n - 1, x + @m); }
=> @F(x % 7, x)

LINK u64 @F(u64 x) { return @1(x); }
=> (CALLED(@1), @F(x))

LINK u64 @F(u64 x) { CALLED(@1); return @1(@e); }
=> @F(x)

LINK u64 @F(u64 x) { u64 a, b; CALLED(@1); CALLED(@2); a = @1(x); b = @2(x + @m);
    return a ^ b << 1; }
=> @F(x)

LINK u64 @F(u64 x) { if (x % 3) return @c; return @c; }
=> @F(x)

LINK u64 @F(u64 (*to)(u64), u64 x) { return to(@e); }
=> (CALLED(@1), @F(@1, x))

static u64 (*volatile @Fp)(u64) = @1;
LINK u64 @F(u64 x) { return @Fp(@e); }
=> (CALLED(@1), @F(x))

static u64 (*const @Ft[])(u64) = {@1, @2, @3};
static const short @Fn[] = {SLOT(@1), SLOT(@2), SLOT(@3)};
LINK u64 @F(u64 x) { page->slots[@Fn[x % 3]].value++; return @Ft[x % 3](x / 3); }
=> @F(x)

static const struct { u64 (*first)(u64), (*second)(u64); } @Fo = {@1, @2};
LINK u64 @F(const void *o, u64 x) { return ((typeof(&@Fo))o)->second(x); }
=> (CALLED(@2), @F(&@Fo, x))

LINK u64 @F(u64 x) { u64 (*to)(u64) = x % 2 ? @1 : @2; page->slots[x % 2 ? SLOT(@1) :
    SLOT(@2)].value++;
    u64 r = to(x); OPAQUE(r); return r + @m; }
=> @F(x)

static KEEP __attribute__((cold)) u64 @G(u64 x) { return @e; }
LINK u64 @F(u64 x) { if (UNLIKELY(x % 5 == 1)) { CALLED(@G); u64 r = @G(x); OPAQUE(r);
    return r ^ @k; }
    return @e; }
=> @F(x)

static KEEP __attribute__((cold)) void @G(u64 *x) { *x ^= @k; }
LINK u64 @F(u64 x) { u64 y = @c; if (UNLIKELY(x % 4 == 1)) { CALLED(@G); @G(&y); y += x; }
    return y * @m; }
=> @F(x)

static KEEP __attribute__((cold)) u64 @G(u64 x) { return x + @k; }
LINK u64 @F(u32 way, u64 x) { switch (way) { case 0: return @e; case 1: CALLED(@G); x = @G(x);
    break;
    case 2: return @c; case 3: CALLED(@G); x = @G(x + 2) * @m; break; case 4: x -= @m; break;
    case 5: x ^= @k; case 6: return x * 3; } OPAQUE(x); return x + way; }
=> @F(x % 8, x)

LINK u64 @F(u64 x) { if (UNLIKELY(x == 0x123456789abcdef0)) { fprintf(stderr, "never: %d", 1);
    abort(); }
    return @c; }
=> @F(x)

LINK u64 @F(u64 x) { if (x == 0x123456789abcdef0) __builtin_trap(); return @e; }
=> @F(x)

LINK u64 @F(u64 x) { if (x != 0x123456789abcdef0) return @e; __builtin_unreachable(); }
=> @F(x)

static KEEP __attribute__((noreturn)) void @G(u64 x) { fprintf(stderr, "never: %d", (int)x);
    abort(); }
LINK u64 @F(u64 x) { u64 r = @c; if (r != 0x123456789abcdef0) return r; CALLED(@G); @G(x); }
=> @F(x)

static jmp_buf @Fb;
static KEEP __attribute__((noreturn)) void @G(int way) { longjmp(@Fb, way); }
LINK u64 @F(u64 x) { volatile u64 kept = x * @m; int way = setjmp(@Fb); if (way) return kept + way;
    CALLED(@G); @G((x & 3) + 1); }
=> @F(x)

static jmp_buf @Fb;
static KEEP u64 @G(u64 n) { if (!n) longjmp(@Fb, @m); CALLED(@G); u64 r = @G(n - 1); OPAQUE(r);
    return r + 1; }
LINK u64 @F(u64 x) { volatile u64 kept = x; if (setjmp(@Fb)) return kept * @m; CALLED(@G);
    return @G(x % 4); }
=> @F(x)

static void *@Fb[5];
static KEEP void @G(u64 x) { if (x % 2) __builtin_longjmp(@Fb, 1); }
LINK u64 @F(u64 x) { volatile u64 kept = x; if (__builtin_setjmp(@Fb)) return kept ^ @k; CALLED(@G);
    @G(x); return kept + @m; }
=> @F(x)

LINK u64 @F(u64 n) { u64 sum = 0; asm volatile("1: add %1, %0\n\tdec %1\n\tjnz 1b"
    : "+r"(sum), "+r"(n) : : "cc"); return sum; }
=> @F(x % 9 + 1)

LINK u64 @F(u64 n, u64 x) { asm volatile("1: add $3, %1\n\tsub $1, %0\n\tjnz 1b"
    : "+D"(n), "+S"(x) : : "cc"); return x; }
=> @F(x % 5 + 1, x)

LINK u64 @F(u64 n) { asm volatile("1: loop 1b" : "+c"(n)); return n + @m; }
=> @F(x % 9 + 1)

LINK u64 @F(void *to, const void *from, u64 n) { asm volatile("rep movsb" : "+D"(to), "+S"(from),
    "+c"(n)
    : : "memory"); return n; }
=> @F(cells + 16, &x, 8) + cells[16]

LINK u64 @F(u64 *p, u64 by) { u64 old = *p; while (!__atomic_compare_exchange_n(p, &old, old * @m +
    by, 0,
    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) { } return old; }
=> (cells[5] = x, @F(cells + 5, x >> 3) + cells[5])

LINK u64 @F(u64 *p) { return __atomic_fetch_add(p, @m, __ATOMIC_SEQ_CST); }
=> (cells[6] = x, @F(cells + 6) + cells[6])

LINK int @F(const char *s) { if (!strcmp(s, "one")) return 1; if (!strcmp(s, "two")) return @m;
    return strlen(s); }
=> @F((const char *[]){"one", "two", "three"}[x % 3])

KEEP static int @G(const void *a, const void *b) { CALLED(@G);
    return *(const int *)a - *(const int *)b; }
LINK u64 @F(u64 x) { int some[7]; for (int i = 0; i < 7; i++) some[i] = (x >> i * 3) & 0x3f;
    qsort(some, 7, sizeof *some, @G); return some[0] + some[3] * 64 + some[6] * 4096; }
=> @F(x)
"""

FRAMES = r"""
LINK double @F(double a, double b) { return a * @d + b / (a * a + 1.0); }
=> bits(@F(x & 1023, x >> 4 & 255))

LINK float @F(float a) { return a < @d ? -a : a * 0.5f; }
=> (u64)(@F(x & 63) + 1000)

LINK double @F(double a) { return __builtin_fabs(a) + @d; }
=> bits(@F((double)(x & 31) - 15))

LINK long double @F(long double a, int n) { long double r = @d; while (n-- > 0) r = r * a + 1.5L;
    return r; }
=> (u64)@F(x & 15, x % 4)

LINK int @F(double a, int b, float c, u8 d) { return a < c ? b : (int)(a - c) + d; }
=> (u64)@F(x & 127, @m, (x >> 7) & 127, x)

LINK double _Complex @F(double _Complex a, double b) { return a * b + @d; }
=> ({ double _Complex r = @F((double)(x & 15) + 2.0i, x & 7); bits(__real__ r) ^ bits(__imag__ r);
    })

LINK long double _Complex @F(long double a) { return a * @d + 3.0i; }
=> ({ long double _Complex r = @F(x & 15); (u64)__real__ r + (u64)__imag__ r; })

LINK __float128 @F(__float128 a, int b) { return a * b + (__float128)@d; }
=> (u64)@F(x & 1023, x % 5)

LINK v4 @F(v4 a, v4 b) { return a * b + (v4){1, 2, @m, 4}; }
=> ({ v4 r = @F((v4){x, x >> 8, 3, 4}, (v4){@m, 5, x, 7}); r[0] + r[2]; })

LINK double @F(int n, ...) { va_list l; double sum = @d; va_start(l, n);
    while (n-- > 0) sum += va_arg(l, double); va_end(l); return sum; }
=> bits(@F(x % 4, (double)(x & 255), 2.5, @d))

LINK u64 @F(int n, ...) { va_list l; u64 sum = @k; va_start(l, n);
    for (int i = 0; i < n; i++) sum = sum * 3 + (i % 3 == 1 ? va_arg(l, double) : va_arg(l, u32));
    va_end(l); return sum; }
=> @F(8, 1u, @d, 3u, (u32)x, 5.0, 6u, 7u, 8.0)

LINK int @F(char *out, const char *how, ...) { va_list l; va_start(l, how);
    int n = vsnprintf(out, 32, how, l); va_end(l); return n; }
=> ({ char out[32]; int n = @F(out, "%u-%s:%.1f", (u32)x & 1023, "end", @d); n + out[0]; })

LINK struct three @F(u64 x, int k) { return (struct three){x * @m, k, x ^ @k}; }
=> ({ struct three r = @F(x, @m); r.a ^ r.b ^ r.c; })

LINK struct three @F(struct three v, u64 by) { v.a += by; v.c *= @m; return v; }
=> ({ struct three r = @F((struct three){x, 2, 3}, x >> 5); r.a ^ r.b ^ r.c; })

LINK u64 @F(struct three v) { return v.a + v.b * @m + v.c; }
=> @F((struct three){x, x >> 3, @m})

LINK struct pair @F(struct pair v) { v.a += @m; v.b *= @d; return v; }
=> ({ struct pair r = @F((struct pair){x & 1023, x & 255}); (u64)r.a ^ bits(r.b); })

LINK struct big @F(struct big v, int at) { v.all[at & 15] ^= @k; return v; }
=> ({ struct big v = {{x, 2, 3}}; v = @F(v, x); v.all[0] + v.all[x & 15]; })

LINK u64 @F(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 g, u64 h) {
    return a + b * 2 + c * 3 + d * @m + e * 5 + f * 6 + g * 7 + h * 8; }
=> @F(x, x >> 1, x >> 2, x >> 3, x >> 4, x >> 5, x >> 6, x >> 7)

LINK double @F(double a, u64 b, double c, u64 d, float e, double f, double g, double h, double i,
    double j,
    double k, u64 l) { return a + b % 97 * c + d % 89 * e - f + g * h + i - j / (k * k + 1) + l %
    83; }
=> bits(@F(1, x, 2, x >> 3, 3, 4, 5, 6, 7, x & 31, 9, x >> 9))

LINK u64 @F(u64 a, u64 b, u64 unused, u64 c, int same) { return a * b + c * same; }
=> @F(x, x + 1, x + 2, x + 3, @m)

LINK u64 @F(u64 x) { u8 room[@b]; memset(room, x, sizeof room); SEEN(room);
    return room[x % sizeof room] + room[0] + @m; }
=> @F(x)

LINK u64 @F(u64 x) { volatile struct { u32 a[10], b[@b], c; } room; room.a[x % 10] = x; room.c = @m;
    u64 y = @c; return room.a[x % 10] + room.c + y; }
=> @F(x)

LINK u64 @F(u64 x) { u8 *room = __builtin_alloca(x % 100 + 16); memset(room, @m, x % 100 + 16);
    SEEN(room);
    return room[x % 16] + (@c); }
=> @F(x)

LINK u64 @F(u64 n) { u64 row[n % 20 + 1]; for (u64 i = 0; i <= n % 20; i++) row[i] = i * n;
    SEEN(row);
    return row[n % 20]; }
=> @F(x)

LINK u64 @F(u64 x) { u64 room[8] __attribute__((aligned(64))); for (int i = 0; i < 8;
    i++) room[i] = x + i;
    SEEN(room); return room[x & 7] + ((u64)room & 63); }
=> @F(x)

LINK u64 @F(u64 x, ...) { char room[16] __attribute__((aligned(32))); SEEN(room); va_list l;
    va_start(l, x);
    x += va_arg(l, u64); va_end(l); return x + ((u64)room & 31); }
=> @F(x, x >> 3)

LINK u64 @F(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 g) {
    v4 room[4] __attribute__((aligned(64)));
    room[a & 3] = (v4){b, c, d, e}; SEEN(room); return room[a & 3][2] + f * g; }
=> @F(x, 2, 3, 4, 5, x >> 3, x >> 9)

LINK u64 @F(u64 x) { void *frames[4]; int n = backtrace(frames, 2); u64 sum = n;
    for (int i = 0; i < n; i++) sum = sum * 31 + (u64)frames[i]; return sum + x; }
=> @F(x)

LINK u64 @F(u64 x) { u64 keep[6]; for (int i = 0; i < 6; i++) { keep[i] = @c; x += @m; } SEEN(keep);
    return keep[0] ^ keep[1] << 1 ^ keep[2] << 2 ^ keep[3] << 3 ^ keep[4] << 4 ^ keep[5] << 5; }
=> @F(x)

LINK u64 @F(u64 a, u64 b, u64 c) { u64 x = a, d = @c; x = b; u64 e = @c; x = c; u64 f = @c;
    return a * d + b * e + c * f; }
=> @F(x, x >> 7, x >> 13)

LINK __attribute__((ms_abi)) u64 @F(u64 a, double b, u64 c, u64 d, u64 e) { u64 x = a; u64 y = @c;
    return y + (u64)b + c * d + e; }
=> @F(x, x & 63, 3, x >> 2, 5)

LINK u64 @F(u64 x) { char text[24]; snprintf(text, sizeof text, "%llu", (unsigned long long)x);
    return strtoull(text, NULL, 10) + strlen(text) + @m; }
=> @F(x)
"""

GCC = r"""
LINK u64 @F(u64 x) { KEEP u64 @G(u64 y) { return x * y + @m; } CALLED(@G); u64 r = @G(@k);
    OPAQUE(r);
    return r; }
=> @F(x)

__attribute__((target_clones("avx2", "default"), noinline)) u32 @F(const u32 *p, u64 n) {
    u32 sum = @m;
    for (u64 i = 0; i < n; i++) sum += p[i] * p[i]; return sum; }
=> @F((const u32 *)words + 24, x % 20)

KEEP __attribute__((optimize("O3"))) u64 @F(u64 x) { u64 sum = 0; for (int i = 0; i < 9;
    i++) sum += x >> i;
    return sum; }
=> @F(x)

LINK u64 @F(u64 x) { u64 y = @c; if (x % 4 == 1) goto rare; return y;
rare: __attribute__((cold)); return y * @m; }
=> @F(x)
"""

CLANG = r"""
KEEP u64 @F(u64 x) { CALLED(@1); __attribute__((musttail)) return @1(x); }
=> @F(x)

KEEP static PRESERVE_MOST u64 @F(u64 x) { return @e; }
=> @F(x) + x * @m

KEEP static __attribute__((regcall)) u64 @F(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 g, u64 h)
    {
    return a + b * 2 + c * 3 + d * 5 + e * 7 + f * @m + g * 11 + h; }
=> @F(x, x >> 1, x >> 2, 3, 4, 5, x >> 6, x >> 7)

__attribute__((optnone, noinline)) u64 @F(u64 x) { u64 y = @e; return y + @m; }
=> @F(x)
"""


def split(text: str) -> list[tuple[str, str]]:
    """(definition, call) of each pattern of a text."""
    pairs = [pattern.rpartition("\n=> ") for pattern in text.strip("\n").split("\n\n")]
    return [(definition, call) for definition, _, call in pairs]
