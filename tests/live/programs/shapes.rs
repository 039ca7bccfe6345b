// Each line of standard input is one round of what Rust code is made of: enums and matches, traits,
// closures, generics, iterators, results, 128 bits, and panics that unwind. Answers with the sum,
// and with NAME=CALLS for each function f_... since the start.
use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{stdin, BufRead};
use std::panic::{catch_unwind, set_hook};
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counted {
    ($($name:ident)*) => {
        #[allow(non_camel_case_types, dead_code)]
        enum Slot { $($name),* }
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}
counted!(f_leaf f_match f_area f_apply f_largest f_sum f_parse f_wide f_grows f_falls f_drops f_big f_tail f_text);
static CALLS: [AtomicU64; 32] = [const { AtomicU64::new(0) }; 32];

fn count(slot: Slot) {
    CALLS[slot as usize].fetch_add(1, Ordering::Relaxed);
}

enum Shape { Dot, Line(u64), Box { wide: u64, high: u64 }, Named(String), Pair(u32, u32), Far(i128) }
trait Area { fn f_area(&self, scale: u64) -> u64; }
struct Plain(u64);
struct Deep(Box<dyn Area>);
struct Guard<'a>(&'a AtomicU64);

impl Area for Plain {
    #[inline(never)]
    fn f_area(&self, scale: u64) -> u64 { count(Slot::f_area); self.0 * scale }
}
impl Area for Deep {
    #[inline(never)]
    fn f_area(&self, scale: u64) -> u64 { count(Slot::f_area); self.0.f_area(scale) + 1 }
}
impl Drop for Guard<'_> {
    fn drop(&mut self) { self.0.fetch_add(1, Ordering::Relaxed); }
}

#[inline(never)]
fn f_leaf(x: u64) -> u64 { count(Slot::f_leaf); black_box(x).rotate_left(7) ^ 0x5bd1e995 }

#[inline(never)]
fn f_match(shape: &Shape) -> u64 {
    count(Slot::f_match);
    match shape {
        Shape::Dot => 1,
        Shape::Line(length) => length + 2,
        Shape::Box { wide, high } => wide * high,
        Shape::Named(name) => name.len() as u64 * 3,
        Shape::Pair(a, b) => f_leaf((a ^ b) as u64),
        Shape::Far(far) => (far >> 64) as u64,
    }
}

#[inline(never)]
fn f_apply<F: Fn(u64) -> u64>(f: F, x: u64) -> u64 { count(Slot::f_apply); f(f(x)) }

#[inline(never)]
fn f_largest<T: PartialOrd + Copy>(all: &[T]) -> Option<T> {
    count(Slot::f_largest);
    let mut best = *all.first()?;
    for &one in all {
        if one > best { best = one; }
    }
    Some(best)
}

#[inline(never)]
fn f_sum(numbers: &[f64]) -> f64 { count(Slot::f_sum); numbers.iter().map(|x| x * 1.5).sum() }

#[inline(never)]
fn f_parse(text: &str) -> Result<u64, std::num::ParseIntError> { count(Slot::f_parse); text.trim().parse() }

#[inline(never)]
fn f_wide(a: u128, b: u128) -> u128 { count(Slot::f_wide); a * 3 / (b | 1) }

#[inline(never)]
fn f_grows(n: u64) -> Vec<Box<u64>> { count(Slot::f_grows); (0..n % 20).map(Box::new).collect() }

#[inline(never)]
fn f_falls(x: u64, dropped: &AtomicU64) -> u64 {
    count(Slot::f_falls);
    let _guard = Guard(dropped);
    let table = [3, 1, 4, 1, 5];
    if x % 7 == 6 { panic!("at {x}"); }
    table[black_box(x % 6) as usize]
}

#[inline(never)]
fn f_drops(x: u64) -> u64 {
    count(Slot::f_drops);
    let dropped = AtomicU64::new(0);
    let value = catch_unwind(std::panic::AssertUnwindSafe(|| f_falls(x, &dropped))).unwrap_or(99);
    value * 10 + dropped.load(Ordering::Relaxed)
}

#[inline(never)]
fn f_big(x: u64) -> [u64; 300] { count(Slot::f_big); std::array::from_fn(|i| x ^ i as u64) }

#[inline(never)]
fn f_tail(x: u64) -> u64 { count(Slot::f_tail); f_leaf(x + 1) }

#[inline(never)]
fn f_text(x: u64) -> String { count(Slot::f_text); format!("{x:05}:{:.2}", x as f64 / 7.0) }

fn round() -> u64 {
    let mut sum = 0u64;
    let mut seen = BTreeMap::new();
    for x in 0..200u64 {
        let shape = match x % 6 {
            0 => Shape::Dot,
            1 => Shape::Line(x),
            2 => Shape::Box { wide: x, high: 3 },
            3 => Shape::Named("n".repeat(x as usize % 9)),
            4 => Shape::Pair(x as u32, 77),
            _ => Shape::Far((x as i128) << 64),
        };
        let deep: Box<dyn Area> = Box::new(Deep(Box::new(Plain(x))));
        let parts = [
            f_match(&shape),
            deep.f_area(3),
            f_apply(|y| y * 3 + x, x),
            f_largest(&[x as i32, 40, -3]).unwrap() as u64,
            f_largest::<f32>(&[]).map_or(5, |y| y as u64),
            f_sum(&[x as f64, 2.0, 3.0]) as u64,
            f_parse(if x % 3 == 0 { " 12 " } else { "x" }).unwrap_or(4),
            f_wide(x as u128 * 7, x as u128) as u64,
            f_grows(x).iter().map(|y| **y).sum(),
            f_drops(x),
            f_big(x)[x as usize],
            f_tail(x),
            f_text(x).len() as u64,
        ];
        for part in parts { sum = sum.wrapping_mul(31).wrapping_add(part); }
        *seen.entry(sum % 7).or_insert(0u64) += 1;
    }
    sum ^ seen.values().fold(0, |a, b| a * 3 + b)
}

fn main() {
    set_hook(Box::new(|_| ()));
    println!("READY");
    for _ in stdin().lock().lines() {
        print!("{}", round());
        for (name, calls) in NAMES.iter().zip(&CALLS) {
            print!(" {}={}", name, calls.load(Ordering::Relaxed));
        }
        println!();
    }
}
