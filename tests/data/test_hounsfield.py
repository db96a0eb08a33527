import pytest

from longflow.data.hounsfield import is_ct


@pytest.mark.parametrize("name", ["CT", "ncct", "CT native", "CT_portal-venous", "CT non-contrast", " CECT late"])
def test_names_of_ct(name):
    assert is_ct(name)


@pytest.mark.parametrize("name", ["T1", "", "CT perfusion Tmax", "octet", "contrast", "noNorm"])
def test_other_names(name):
    assert not is_ct(name)
