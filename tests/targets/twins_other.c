// The second file of twins.c: its f_twin is called twice.
#define FUNCTION __attribute__((noipa, used))
static FUNCTION long f_twin(long x) { return x * 5 + 100; }
long other(long x) { return f_twin(x) + f_twin(x + 1); }
