import pytest
from tests.ops import harness
@pytest.mark.parametrize("op", harness.elementwise(), ids=lambda op: op.name)
def test_c(op):
    bad=[]
    for call in harness.special_calls(op):
        try: harness.check_compiled(call)
        except AssertionError as e: bad.append(str(call.types)+str(e)[:900])
    assert not bad, "\n".join(bad)
