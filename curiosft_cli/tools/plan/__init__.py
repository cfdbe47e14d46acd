"""`curiosft plan`: does it fit, how long does it take, how much disk does it need?"""
