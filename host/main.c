#include "mlhost/mlhost.h"

int main(int argc, char **argv)
{
    return mlhost_main(argc, argv);
}
