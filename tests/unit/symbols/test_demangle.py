"""Names of C++ and Rust as people write them; expected values are c++filt's."""

from __future__ import annotations

import pytest

from fentry.symbols.demangle import base_name, demangle

NAMES = {
    "_ZN3foo3barEi": "foo::bar(int)",
    "_ZNSt6vectorIiSaIiEE9push_backERKi": (
        "std::vector<int, std::allocator<int> >::push_back(int const&)"
    ),
    "_ZN1AC1Ev": "A::A()",
    "_ZN1AD2Ev": "A::~A()",
    "_ZNK1AltERKS_": "A::operator<(A const&) const",
    "_ZN12_GLOBAL__N_13runEv": "(anonymous namespace)::run()",
    "_ZN4core3fmt5write17h0123456789abcdefE": "core::fmt::write::h0123456789abcdef",
}


@pytest.mark.parametrize(("mangled", "plain"), NAMES.items())
def test_a_mangled_name_is_read(mangled: str, plain: str) -> None:
    assert demangle(mangled) == plain


@pytest.mark.parametrize(
    "name", ["", "main", "_Z", "_ZN", "_Zgarbage", "_R", "_RNvC", "_ZN\udcff3f"]
)
def test_any_other_name_stays_as_it_is(name: str) -> None:
    assert demangle(name) == name


@pytest.mark.parametrize(
    ("plain", "base"),
    [
        ("foo::bar(int)", "foo::bar"),
        ("std::vector<int, std::allocator<int> >::push_back(int const&)", "std::vector::push_back"),
        ("A::operator<(A const&) const", "A::operator<"),
        ("A::operator<<(int)", "A::operator<<"),
        ("A::operator()(int)", "A::operator()"),
        ("(anonymous namespace)::run()", "(anonymous namespace)::run"),
        ("foo::(anonymous namespace)::run(int)", "foo::(anonymous namespace)::run"),
        ("int ns::twice<int>(int)", "ns::twice"),
        ("std::map<int, A<(B)1> > ns::make<int>(int)", "ns::make"),
        ("A::operator std::string() const", "A::operator std::string"),
        ("A::operator->() const", "A::operator->"),
        ("A::operator new[](unsigned long)", "A::operator new[]"),
        ("bool operator< <int>(A<int> const&, A<int> const&)", "operator<"),
        ("void f<&A::operator->>(int)", "f"),
        ("run(int)::{lambda(int)#2}::operator()(int) const", "run"),
        ("plain", "plain"),
    ],
)
def test_the_base_name_has_no_parameters_and_template_arguments(plain: str, base: str) -> None:
    assert base_name(plain) == base
