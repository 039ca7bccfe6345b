// build: gcc -O2 -fcf-protection=none -shared -fPIC libdso.c
// The library of dso: f_library, and a constructor that calls it once before anybody can look.
static volatile long made;

__attribute__((noipa)) long f_library(long x) { return x * 11 + 6; }

__attribute__((constructor)) static void construct(void) { made = f_library(0); }
