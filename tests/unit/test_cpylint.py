"""Mistakes with Python's C API that were made, or are easily made, in sbe/native."""

import re
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "sbe" / "native"
LINES_MAX, FUNCTION_MAX = 600, 70

# Pattern in code without comments and the words of strings: what to do instead.
RULES = {
    r"Py_X?(IN|DE)CREF\((?:self|call|channel|request|memory|table|batch)\)": (
        "our own structs are no PyObject *: native_hold(), native_drop()"
    ),
    r"\bPy_CLEAR\((?:self->)?(?:next|last)": "links of lists are borrowed",
    r"\b(Py_SIZE|Py(Tuple|List|Bytes|Unicode|ByteArray)_(GET|SET|AS)_[A-Z]+)\(": (
        "macros without checks are not in the limited API"
    ),
    r"->(tp|nb|sq|mp|bf|am)_\w+": "types are opaque: PyType_GetSlot()",
    r"\b(PyObject_(GC_)?(New|NewVar|Del)|PyObject_Free|_Py[A-Z]\w+)\b": (
        "not for heap types of the limited API: PyType_GenericAlloc(), Py_tp_free"
    ),
    r"\bPyModule_AddObject\(": "steals only on success: PyModule_AddObjectRef()",
    r"\bPyDict_GetItem\(": "hides errors: PyDict_GetItemWithError()",
    r"\bPyEval_(SaveThread|RestoreThread)\b": "Py_BEGIN_ALLOW_THREADS, in pairs one can see",
    r"(?<![\w>])(malloc|calloc|realloc|free)\(": "PyMem_*: the debug allocator watches it",
    r"\bPyMem_(Malloc|Realloc)\([^;]*\bcount\b[^;]*\*": "PyMem_Calloc() looks for overflow",
    r"\bPyErr_Clear\(\);\s*return NULL": "NULL without an exception is a SystemError",
    r"PyArg_Parse\w+\([^;\"]*\"[^\"]*[BbHkIK]": "formats that cut off what does not fit: O&",
    r"(?m)^\s*Py(List_Append|Dict_SetItem\w*|Tuple_SetItem)\(": "fails, and nobody looks",
}


def code_of(path: Path) -> str:
    """Without comments, lines kept."""
    comments = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
    return comments.sub(lambda found: "\n" * found[0].count("\n"), path.read_text())


def functions(code: str) -> list[tuple[str, str]]:
    return re.findall(
        r"^(?!static const|struct|enum)\w[^;{}=]*?(\w+)\([^;{}]*\)\n\{(.*?)^\}", code, re.M | re.S
    )


@pytest.mark.parametrize("path", sorted(NATIVE.glob("*.[ch]")), ids=lambda path: path.name)
def test_c_api(path: Path):
    code, faults = code_of(path), []
    for pattern, instead in RULES.items():
        if "malloc" in pattern and re.search(r'pthread_create|"doorbell_table\.h"', code):
            continue  # PyMem_* wants the GIL, which a thread of our own never has
        for found in re.finditer(pattern, code):
            line = code.count("\n", 0, found.start()) + 1
            faults.append(f"{path.name}:{line}: {found[0]!r}: {instead}")
    if code.count("\n") > LINES_MAX:
        faults.append(f"{path.name} has more than {LINES_MAX} lines")
    collected = re.search(r"NATIVE_COLLECTED(?! \()|TPFLAGS_HAVE_GC\b(?!\))", code)
    for name, body in functions(code):
        if body.count("\n") > FUNCTION_MAX:
            faults.append(f"{path.name}: {name}() has more than {FUNCTION_MAX} lines")
        if body.count("ALLOW_THREADS") % 2 or body.count("PyGC_") % 2:
            faults.append(f"{path.name}: {name}() does not end what it begins")
        if collected and name.endswith("_dealloc") and "PyObject_GC_UnTrack" not in body:
            faults.append(f"{path.name}: {name}() takes apart what the collector sees")
        if name.endswith("_traverse") and "Py_TYPE(object)" not in body:
            faults.append(f"{path.name}: {name}() does not visit the heap type")
        allowed = re.split(r"Py_BEGIN_ALLOW_THREADS|Py_END_ALLOW_THREADS", body)[1::2]
        if any(re.search(r"\b(Py|native_(?!now))\w+\(", part) for part in allowed):
            faults.append(f"{path.name}: {name}() calls Python without the GIL")
    assert not faults, "\n".join(faults)


def test_the_rules_find_what_they_are_for():
    wrong = """
        Py_INCREF(self); PyTuple_GET_ITEM(t, 0); type->tp_free(o); PyObject_Del(o); free(p);
        PyArg_ParseTuple(a, "OK", &x); PyErr_Clear(); return NULL;
        PyList_Append(l, o);
    """
    assert sum(bool(re.search(pattern, wrong)) for pattern in RULES) == 8
