"""A page about artifacts: do they agree, how exact are they, and where is that lost?"""
