// build: g++ -pthread -Wno-infinite-recursion unwinds.cpp
// Exceptions of all kinds pass through functions of all kinds. Each counts its calls, by the name
// that it has demangled without parameters. A round answers the same each time, and destroys as
// many Guards as it makes.
#include "bed.h"
#include <algorithm>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#define NAMES(X)                                                                                  \
    X(f_deep) X(f_throws) X(f_rethrows) X(f_translates) X(f_nests) X(f_unnests) X(f_sorts)        \
    X(f_filters) X(f_cleans) X(f_takes) X(f_makes) X(f_text) X(f_quiet) X(f_whole) X(f_twice)     \
    X(f_calls_back) X(f_static) X(f_carries) X(f_first) X(f_second) X(f_area) X(f_local)          \
    X(f_many) X(f_made) X(f_destroyed)
#define NUMBER(name) name##_number,
#define TEXT(name) #name,
enum { NAMES(NUMBER) NR_NAMES };
static const char *const names[] = {NAMES(TEXT)};
static volatile uint64_t *calls[NR_NAMES];
#define COUNT(name) (++*calls[name##_number])
#define FUNCTION __attribute__((noinline))

struct Guard {
    long value;
    FUNCTION void f_made() { COUNT(f_made); }
    FUNCTION void f_destroyed() { COUNT(f_destroyed); }
    explicit Guard(long value) : value(value) { f_made(); }
    Guard(const Guard &other) : value(other.value) { f_made(); }
    ~Guard() { f_destroyed(); }
};

struct Problem : std::runtime_error {
    long code;
    explicit Problem(long code) : std::runtime_error("a problem"), code(code) {}
};
struct Worse : Problem { using Problem::Problem; };

struct First { virtual long f_first(long x) = 0; virtual ~First() = default; };
struct Second { long base = 3; virtual long f_second(long x) = 0; virtual ~Second() = default; };
struct Both final : First, Second {
    FUNCTION long f_first(long x) override { COUNT(f_first); return x > 5 ? throw Worse(x) : x; }
    FUNCTION long f_second(long x) override { COUNT(f_second); return x % 3 ? x + base : throw x; }
};
struct Shape {
    FUNCTION virtual long f_area(long x) const { COUNT(f_area); return x; }
    virtual ~Shape() = default;
};
struct Square : Shape {
    FUNCTION long f_area(long x) const override { COUNT(f_area); return Shape::f_area(x) * x; }
};

[[noreturn]] FUNCTION void f_throws(long x)
{
    COUNT(f_throws);
    if (x % 4 == 0)
        throw Problem(x);
    if (x % 4 == 1)
        throw Worse(x);
    if (x % 4 == 2)
        throw x;
    throw "text";
}

FUNCTION long f_deep(long n, long x)
{
    COUNT(f_deep);
    Guard guard(n);
    if (!n)
        f_throws(x);
    return f_deep(n - 1, x) + guard.value;
}

FUNCTION long f_rethrows(long x)
{
    COUNT(f_rethrows);
    try {
        return f_deep(x % 5, x);
    } catch (...) {
        Guard guard(x);
        throw;
    }
}

FUNCTION long f_translates(long x)
{
    COUNT(f_translates);
    try {
        return f_rethrows(x);
    } catch (const Worse &worse) {
        throw Problem(worse.code * 2);
    } catch (long value) {
        return value * 7;
    }
}

FUNCTION long f_filters(long x)
{
    COUNT(f_filters);
    try {
        return f_translates(x);
    } catch (const std::exception &problem) {
        return static_cast<const Problem &>(problem).code + 1;
    } catch (const char *text) {
        return text[x % 4];
    }
}

FUNCTION void f_nests(long n)
{
    COUNT(f_nests);
    try {
        n ? f_nests(n - 1) : f_throws(4);
    } catch (...) {
        std::throw_with_nested(Problem(n));
    }
}

FUNCTION long f_unnests(const std::exception &problem, long sum)
{
    COUNT(f_unnests);
    try {
        std::rethrow_if_nested(problem);
    } catch (const Problem &inner) {
        return f_unnests(inner, sum * 3 + inner.code);
    }
    return sum;
}

FUNCTION long f_cleans(long x)
{
    COUNT(f_cleans);
    Guard a(x), b(x + 1);
    volatile char room[3000];
    room[x % 3000] = 1;
    std::vector<Guard> guards(x % 3 + 1, a);
    long sum = f_deep(x % 3, x);
    return sum + room[x % 3000] + b.value + guards.size();
}

FUNCTION long f_takes(Guard a, long b, Guard c, double d, long e, Guard f, long g, long h)
{
    COUNT(f_takes);
    return a.value + b + c.value + long(d) + e + f.value + g + h;
}

FUNCTION std::unique_ptr<Guard> f_makes(long x)
{
    COUNT(f_makes);
    auto guard = std::make_unique<Guard>(x);
    if (x % 3 == 1)
        f_throws(x);
    return guard;
}

FUNCTION std::string f_text(long x) { COUNT(f_text); return std::string(x % 40, 'a') + "end"; }

FUNCTION long f_quiet(long x) noexcept
{
    COUNT(f_quiet);
    try {
        return f_makes(x)->value;
    } catch (...) {
        return -1;
    }
}

FUNCTION long f_whole(long x)
try {
    COUNT(f_whole);
    return f_takes(Guard(x), 2, Guard(f_cleans(x)), 3.5, 4, Guard(5), 6, 7);
} catch (long value) {
    return value;
} catch (...) {
    return -2;
}

template <class T> FUNCTION T f_twice(T x) { COUNT(f_twice); return x == T(9) ? throw x : x + x; }

FUNCTION long f_calls_back(const std::function<long(long)> &to, long x)
{
    COUNT(f_calls_back);
    Guard guard(x);
    return to(x) + guard.value;
}

FUNCTION long f_static(long x)
{
    COUNT(f_static);
    static Guard *kept = new Guard(x ? f_text(x).size() : 1);
    return kept->value;
}

FUNCTION std::exception_ptr f_carries(long x)
{
    COUNT(f_carries);
    try {
        f_throws(x);
    } catch (...) {
        return std::current_exception();
    }
}

FUNCTION int f_sorts(const void *a, const void *b)
{
    COUNT(f_sorts);
    long x = *static_cast<const long *>(a), y = *static_cast<const long *>(b);
    return x == 13 || y == 13 ? throw x + y : x < y ? -1 : x > y;
}

FUNCTION long f_local(long x)
{
    COUNT(f_local);
    struct Local {
        long *to;
        ~Local() { ++*to; }
    };
    long destroyed = 0;
    for (long i = 0; i < 3; i++)
        try {
            Local one{&destroyed}, two{&destroyed};
            if (i == x % 3)
                throw Problem(i);
        } catch (Problem &problem) {
            destroyed += problem.code;
        }
    return destroyed;
}

FUNCTION long f_many(long x)
{
    COUNT(f_many);
    long sum = f_filters(x) + f_quiet(x) * 3 + f_whole(x) * 5 + f_local(x) + f_text(x).size();
    Both both;
    First *first = &both;
    Second *second = &both;
    Square square;
    const Shape *shape = &square;
    long some[] = {x % 11, 4, x % 17, 2, 9};
    try { sum += first->f_first(x % 9); } catch (Problem &problem) { sum ^= problem.code; }
    try { sum += second->f_second(x % 7); } catch (long value) { sum ^= value; }
    try { f_nests(x % 4); } catch (const std::exception &problem) { sum += f_unnests(problem, 1); }
    try { sum += f_twice(x % 10) + long(f_twice(double(x % 10))); } catch (...) { sum += 2; }
    try { sum += f_calls_back([x](long y) { return x % 2 ? f_deep(1, y) : y; }, x); }
    catch (...) { sum -= 1; }
    try { std::rethrow_exception(f_carries(x)); } catch (long) { sum++; } catch (...) { sum += 9; }
    try { qsort(some, 5, sizeof *some, f_sorts); } catch (long value) { sum += value; }
    return sum + f_static(x) * 0 + shape->f_area(x % 100) + some[0];
}

static void *work(void *nothing)
{
    enum { NUMBERS = 60 };
    static long expected[NUMBERS];
    volatile uint64_t *rounds = nullptr;
    f_static(5);
    do {
        uint64_t living = *calls[f_made_number] - *calls[f_destroyed_number];
        for (long x = 0; x < NUMBERS; x++) {
            long found = f_many(x * 7 + 3);
            if (rounds && found != expected[x])
                bed_bad("f_many", found, expected[x]);
            expected[x] = found;
        }
        if (*calls[f_made_number] - *calls[f_destroyed_number] != living)
            bed_bad("guards", *calls[f_made_number] - *calls[f_destroyed_number], living);
        if (!rounds) {
            rounds = bed_counter("rounds");
            bed_enter();
            bed_ready();
        } else
            ++*rounds;
    } while (bed_running());
    bed_leave();
    return nothing;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    bed_open(argc, argv);
    for (int i = 0; i < NR_NAMES; i++)
        calls[i] = bed_counter(names[i]);
    bed_threads(&thread, 1, work);
    bed_await_stop();
    pthread_join(thread, NULL);
    return bed_end();
}
