"""Hard case 96: names as c++filt and rustc's own demangler read them."""

from __future__ import annotations

import re

import pytest

from fentry.symbols.demangle import base_name, demangle

# mangled: (what c++filt 2.40 prints, what people type)
CPP = {
    "_Z2enIL1E1EEiv": ("int en<(E)1>()", "en"),
    "_Z3arrRA3_iM4BaseKFviEMS1_iPVcz": (
        "arr(int (&) [3], void (Base::*)(int) const, int Base::*, char volatile*, ...)",
        "arr",
    ),
    "_Z4callIXadL_Z6targetiEEEii": ("int call<&(target(int))>(int)", "call"),
    "_Z5twiceIiEDTplfp_fp_ET_": ("decltype ({parm#1}+{parm#1}) twice<int>(int)", "twice"),
    "_ZL2spii": ("sp(int, int)", "sp"),
    "_ZN12_GLOBAL__N_16hiddenEi": (
        "(anonymous namespace)::hidden(int)",
        "(anonymous namespace)::hidden",
    ),
    "_ZN2ns2v13BoxIiLi3EE4makeERA3_i": (
        "ns::v1::Box<int, 3>::make(int (&) [3])",
        "ns::v1::Box::make",
    ),
    "_ZN2ns2v13BoxIiLi3EEC2Ev": ("ns::v1::Box<int, 3>::Box()", "ns::v1::Box::Box"),
    "_ZN2ns2v13BoxIiLi3EED0Ev": ("ns::v1::Box<int, 3>::~Box()", "ns::v1::Box::~Box"),
    "_ZN2ns2v13BoxIiLi3EEcvPT_IcEEv": (
        "ns::v1::Box<int, 3>::operator char*<char>()",
        "ns::v1::Box::operator char*<char>",
    ),
    "_ZNK2ns2v13BoxIiLi3EEcvbEv": (
        "ns::v1::Box<int, 3>::operator bool() const",
        "ns::v1::Box::operator bool",
    ),
    "_ZNKO2ns2v13BoxIiLi3EEixEi": (
        "ns::v1::Box<int, 3>::operator[](int) const &&",
        "ns::v1::Box::operator[]",
    ),
    "_ZThn8_N7Derived1gEv": ("non-virtual thunk to Derived::g()", "Derived::g"),
    "_ZTv0_n32_N4Virt1fEi": ("virtual thunk to Virt::f(int)", "Virt::f"),
    "_ZZN12_GLOBAL__N_16hiddenEiEN5Local2goEv": (
        "(anonymous namespace)::hidden(int)::Local::go()",
        "(anonymous namespace)::hidden",
    ),
    "_Zli3_kme": ('operator"" _km(long double)', 'operator"" _km'),
    "_Zor1ES_": ("operator|(E, E)", "operator|"),
    "_Zss4BaseS_": ("operator<=>(Base, Base)", "operator<=>"),
    "_ZdlPvm": ("operator delete(void*, unsigned long)", "operator delete"),
    "_ZN4TmplIiE1mISaEEvT_IiE": (
        "void Tmpl<int>::m<std::allocator>(std::allocator<int>)",
        "Tmpl::m",
    ),
    "_ZN3fooB5cxx11Ev": ("foo[abi:cxx11]()", "foo[abi:cxx11]"),
    "_ZN3foo3barEi.constprop.0": ("foo::bar(int) [clone .constprop.0]", "foo::bar"),
    "_ZSt9addressofIKcEPT_RS1_": (
        "char const* std::addressof<char const>(char const&)",
        "std::addressof",
    ),
}


@pytest.mark.parametrize("mangled", CPP)
def test_a_cpp_name_is_read_as_by_cppfilt(mangled: str) -> None:
    plain, base = CPP[mangled]
    assert (demangle(mangled), base_name(demangle(mangled))) == (plain, base)


# Of a library made by rustc 1.95 (v0), where the source says what each is; without the hashes of
# crates, which rustc's demangler leaves out of its short form and c++filt prints as [...].
RUST = {
    "_RNvCsf6No1ZYbnpa_1n7dynamic": "n::dynamic",
    "_RNvNvNvCsf6No1ZYbnpa_1n5start5inner4deep": "n::start::inner::deep",
    "_RNvNtCsf6No1ZYbnpa_1nu8bung_zrau9gre_6ka8i": "n::übung::größe",
    "_RINvCsf6No1ZYbnpa_1n5applyNCNvB2_5start0EB2_": "n::apply::<n::start::{closure#0}>",
    "_RINvCsf6No1ZYbnpa_1n5applyNvNvB2_5start5innerEB2_": "n::apply::<n::start::inner>",
    "_RINvCsf6No1ZYbnpa_1n7genericFKCmEyEB2_": 'n::generic::<extern "C" fn(u32) -> u64>',
    "_RINvCsf6No1ZYbnpa_1n7genericQlEB2_": "n::generic::<&mut i32>",
    "_RINvCsf6No1ZYbnpa_1n7genericRStEB2_": "n::generic::<&[u16]>",
    "_RINvCsf6No1ZYbnpa_1n7genericReEB2_": "n::generic::<&str>",
    "_RINvCsf6No1ZYbnpa_1n7genericThcbEEB2_": "n::generic::<(u8, char, bool)>",
    "_RNvMs4_NtCslNYArtu3iFV_5alloc7raw_vecNtB5_11RawVecInner11finish_growCsf6No1ZYbnpa_1n": (
        "<alloc::raw_vec::RawVecInner>::finish_grow"
    ),
    "_RNvXNtCsf6No1ZYbnpa_1n6shapesNtB2_6SquareNtB2_4Area4area": (
        "<n::shapes::Square as n::shapes::Area>::area"
    ),
    "_RNvXs_NtCsf6No1ZYbnpa_1n6shapesINtB4_4PairNtB4_6SquareBE_ENtB4_4Area4areaB6_": (
        "<n::shapes::Pair<n::shapes::Square, n::shapes::Square> as n::shapes::Area>::area"
    ),
    # before 1.95: escapes between the letters (legacy)
    "_ZN71_$LT$Test$u20$$u2b$$u20$$u27$static$u20$as$u20$foo..Bar$LT$Test$GT$$GT$3bar"
    "17h930b740aa94f1d3aE": "<Test + 'static as foo::Bar<Test>>::bar::h930b740aa94f1d3a",
    "_ZN4core3ptr42drop_in_place$LT$alloc..string..String$GT$17h0123456789abcdefE": (
        "core::ptr::drop_in_place<alloc::string::String>::h0123456789abcdef"
    ),
}


@pytest.mark.parametrize("mangled", RUST)
def test_a_rust_name_is_read_as_by_rust(mangled: str) -> None:
    assert re.sub(r"\[[0-9a-f]+\]", "", demangle(mangled)) == RUST[mangled]


@pytest.mark.parametrize(
    ("mangled", "typed"),
    [
        ("_RNvCsf6No1ZYbnpa_1n7dynamic", "n::dynamic"),
        ("_RINvCsf6No1ZYbnpa_1n7genericReEB2_", "n::generic"),
        ("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write"),
    ],
)
def test_what_people_type_of_a_rust_name_has_no_hash_and_no_arguments(
    mangled: str, typed: str
) -> None:
    assert base_name(demangle(mangled)) == typed
