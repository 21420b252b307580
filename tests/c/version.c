// rf_version, rf_abi_version, rf_abi_compatible, rf_has_feature, rf_status_name.
#include "harness.h"

#include <stdio.h>

void test_version(const fixture *f) {
    (void)f;
    char expected[32];
    snprintf(expected, sizeof expected, "%d.%d.%d", RF_VERSION_MAJOR, RF_VERSION_MINOR, RF_VERSION_PATCH);
    CHECK_TEXT(rf_version(), expected);
    CHECK(rf_abi_version() == RF_ABI_VERSION);
    CHECK(rf_abi_compatible(RF_ABI_VERSION));
    CHECK(!rf_abi_compatible(RF_ABI_VERSION + 1));
    CHECK(!rf_abi_compatible(0));
    CHECK(rf_has_feature("cpu") == 1);
    CHECK(rf_has_feature("telepathy") == 0);
    CHECK(rf_has_feature("\xff") == 0);
    CHECK(rf_has_feature(NULL) == 0);

#define CHECK_NAME(status) CHECK_TEXT(rf_status_name(status), #status)
    CHECK_NAME(RF_OK);
    CHECK_NAME(RF_PENDING);
    CHECK_NAME(RF_DONE);
    CHECK_NAME(RF_CANCELLED);
    CHECK_NAME(RF_FULL);
    CHECK_NAME(RF_E_ARGUMENT);
    CHECK_NAME(RF_E_IO);
    CHECK_NAME(RF_E_FORMAT);
    CHECK_NAME(RF_E_UNSUPPORTED);
    CHECK_NAME(RF_E_OUT_OF_MEMORY);
    CHECK_NAME(RF_E_CONTEXT_FULL);
    CHECK_NAME(RF_E_BUSY);
    CHECK_NAME(RF_E_TEMPLATE);
    CHECK_NAME(RF_E_BUFFER);
    CHECK_NAME(RF_E_INTERNAL);
    CHECK_TEXT(rf_status_name(12345), "unknown status");
}
