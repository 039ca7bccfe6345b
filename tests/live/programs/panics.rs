// Each line of standard input is one round: threads call f_rust, and panics that unwind through
// traced frames are caught. Answers with the number of calls made and their sum.
use std::io::{stdin, BufRead};
use std::panic::{catch_unwind, set_hook};

#[no_mangle]
#[inline(never)]
pub fn f_rust(x: u64) -> u64 {
    if std::hint::black_box(x) % 100 == 99 {
        panic!("at {}", x);
    }
    std::hint::black_box(x) * 3 + 1
}

fn work() -> u64 {
    (0..1000).map(|x| catch_unwind(|| f_rust(x)).unwrap_or(7)).sum()
}

fn main() {
    set_hook(Box::new(|_| ()));
    println!("READY");
    for _ in stdin().lock().lines() {
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(work)).collect();
        let sum: u64 = threads.into_iter().map(|t| t.join().unwrap()).sum();
        println!("4000 {}", sum);
    }
}
