"""Where each model lies.

A stage's fingerprint leaves this file out, so that a new line here runs no other model again.
"""

# name: module and class. The rows of the paper's Tables I and II, in their order.
PLACES = {
    "vmunet": ("vmunet.model", "VMUNet"),
    "unet": ("vmunet.models.unet", "UNet"),
    "unet-34m": ("vmunet.models.unet", "UNet34M"),
    "unetpp": ("vmunet.models.unetpp", "UNetPlusPlus"),
    "att-unet": ("vmunet.models.att_unet", "AttUNet"),
    "utnetv2": ("vmunet.models.utnetv2", "UTNetV2"),
    "sanet": ("vmunet.models.sanet", "SANet"),
    "transfuse": ("vmunet.models.transfuse", "TransFuse"),
    "malunet": ("vmunet.models.malunet", "MALUNet"),
    "vnet": ("vmunet.models.vnet", "VNet"),
    "r50-unet": ("vmunet.models.r50_unet", "R50UNet"),
    "transunet": ("vmunet.models.transunet", "TransUNet"),
    "transnorm": ("vmunet.models.transnorm", "TransNorm"),
    "swin-unet": ("vmunet.models.swin_unet", "SwinUNet"),
    "transdeeplab": ("vmunet.models.transdeeplab", "TransDeepLab"),
    "uctransnet": ("vmunet.models.uctransnet", "UCTransNet"),
    "mt-unet": ("vmunet.models.mt_unet", "MTUNet"),
    "mew-unet": ("vmunet.models.mew_unet", "MEWUNet"),
}
